"""Type, message and traceback of an exception as text, built in a way that can't fail.

The only handler code called here is `__str__`, once for each exception.
"""

import traceback
from collections.abc import Callable
from types import TracebackType

from jobsvc.execution.exceptions import (
    MAX_TYPE,
    drop,
    is_text,
    members_of,
    notes_of,
    raised_from,
    title,
    trace_of,
    type_name,
)
from jobsvc.strict_json import cut

MAX_MESSAGE = 4 * 1024
"""Characters of an exception's message: it is part of each GET of its job, so a few screens at most."""

MAX_TRACEBACK = 64 * 1024
"""Characters of a traceback; its end is kept, which shows the exception that was raised last."""

MAX_SHOWN = 20
"""Exceptions of a chain or group shown in a traceback; each may have MAX_FRAMES frames."""

MAX_FRAMES = 100
"""Frames shown of one exception: a fifth from the start, the rest from the end. Recursion makes thousands."""

MAX_DEPTH = 10
"""Levels of nested groups shown in a traceback, as in Python's own."""

MAX_NOTES = 20
"""Notes (PEP 678) shown of one exception."""

NO_MESSAGE = "<the message cannot be shown>"
"""Placeholder for a message that could not be built, e.g. without memory."""

NO_TIME = "<the message took too long>"
"""Placeholder for a message whose `__str__` did not return in time."""

UNKNOWN_TYPE = "Exception"
"""Type name used when there is no memory to find out the real one."""

_BECAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


class Description:
    """Texts of an exception, built one by one; a placeholder stands for each that can't be built.

    is_late: returns True once the time limit is over; from then on no handler code is called.
    """

    def __init__(self, is_late: Callable[[], bool] = lambda: False) -> None:
        self.type = UNKNOWN_TYPE
        self.message = NO_MESSAGE
        self.traceback = ""
        self._is_late = is_late
        self._messages: dict[int, str] = {}  # by id of the exception: `__str__` is called once
        self._left = MAX_SHOWN

    def describe(self, subject: BaseException, raised: BaseException, own_modules: tuple[str, ...]) -> None:
        """Set type and message from `subject`, and the traceback from `raised`, which wraps it or is the same.

        own_modules: names of modules whose frames are omitted at the start of the traceback.
        """
        self.type = type_name(subject)
        self.message, self.traceback = NO_TIME, f"{title(subject)}: {NO_TIME}"  # in case the next line is interrupted
        self.message = self._message(subject)
        self.traceback = f"{title(subject)}: {self.message}"  # in case the next line is interrupted
        lines = "".join(self._chain(raised, 0, own_modules))
        self.traceback = cut(lines[-MAX_TRACEBACK:], MAX_TRACEBACK)

    def _message(self, error: BaseException) -> str:
        known = self._messages.get(id(error))
        if known is not None:
            return known
        if self._is_late():
            return NO_TIME
        try:
            text = cut(str(error), MAX_MESSAGE)
        except BaseException as broken:
            drop(broken)
            text = NO_TIME if self._is_late() else f"<the message cannot be shown: str() raised {type_name(broken)}>"
        self._messages[id(error)] = text
        return text

    def _chain(self, error: BaseException, depth: int, own_modules: tuple[str, ...] = ()) -> list[str]:
        """Return the lines of the exception and of those that it was raised from or during, in Python's order."""
        blocks: list[list[str]] = []
        seen: set[int] = set()
        one: BaseException | None = error
        while one is not None and id(one) not in seen and self._left > 0:
            self._left -= 1
            seen.add(id(one))
            before, is_cause = raised_from(one)
            link = _BECAUSE if is_cause else _DURING
            block = self._block(one, depth, own_modules if one is error else ())
            blocks.append([link, *block] if before is not None and id(before) not in seen else block)
            one = before
        if one is not None and id(one) not in seen:
            blocks.append(["[more exceptions were left out]\n"])
        return [line for block in reversed(blocks) for line in block]

    def _block(self, error: BaseException, depth: int, own_modules: tuple[str, ...]) -> list[str]:
        lines = _frames(_without(trace_of(error), own_modules))
        message = self._message(error)
        lines.append(f"{title(error)}: {message}\n" if message else f"{title(error)}\n")
        lines += _notes(error)
        members = members_of(error)
        for number, member in enumerate(members, 1):
            if depth >= MAX_DEPTH or self._left <= 0:
                lines.append(f"  [{len(members) - number + 1} more exceptions of the group were left out]\n")
                break
            lines.append(f"  ---------------- {number} of {len(members)} ----------------\n")
            text = "".join(self._chain(member, depth + 1))
            lines += [f"  | {line}\n" for line in text.splitlines()]
        return lines


def _without(trace: TracebackType | None, modules: tuple[str, ...]) -> TracebackType | None:
    """Return the traceback without leading frames of these modules; all of it if there are no others."""
    inner = trace
    while inner is not None:
        name = dict.get(inner.tb_frame.f_globals, "__name__")
        if type(name) is not str or name not in modules:
            break
        inner = inner.tb_next
    return inner or trace


def _frames(trace: TracebackType | None) -> list[str]:
    if trace is None:
        return []
    header = "Traceback (most recent call last):\n"
    try:
        count = sum(1 for _ in traceback.walk_tb(trace))
        if count <= MAX_FRAMES:
            return [header, *traceback.extract_tb(trace).format()]
        first = MAX_FRAMES // 5
        start, end = traceback.extract_tb(trace, first), traceback.extract_tb(trace, first - MAX_FRAMES)
        return [header, *start.format(), f"  [{count - MAX_FRAMES} frames were left out]\n", *end.format()]
    except BaseException as broken:  # a misbehaving loader or source file
        drop(broken)
        return [header, *_bare_frames(trace)]


def _bare_frames(trace: TracebackType) -> list[str]:
    """Return the frames without source lines: reads no file and calls no foreign code."""
    lines: list[str] = []
    inner: TracebackType | None = trace
    while inner is not None and len(lines) < MAX_FRAMES:
        code = inner.tb_frame.f_code
        file, function = cut(code.co_filename, MAX_TYPE), cut(code.co_name, MAX_TYPE)
        lines.append(f'  File "{file}", line {inner.tb_lineno}, in {function}\n')
        inner = inner.tb_next
    return lines


def _notes(error: BaseException) -> list[str]:
    notes, count = notes_of(error, MAX_NOTES)
    lines = [f"{cut(note, MAX_MESSAGE)}\n" for note in notes if is_text(note)]
    return [*lines, f"[{count - MAX_NOTES} more notes]\n"] if count > MAX_NOTES else lines
