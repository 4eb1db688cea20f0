"""Log lines of an attempt: numbered from 1, kept within a limit, stored in portions, joined for reading."""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

MAX_LINES = 1000
MAX_BYTES = 64 * 1024
"""Limits of an attempt's log: the newest lines are kept, at most MAX_LINES, and MAX_BYTES of text."""

Line = dict[str, Any]
"""{time, level, message}."""


class Lines(NamedTuple):
    """Consecutive lines of one attempt; `last` is the number of the last one, counted from 1."""

    last: int
    lines: list[Line]

    @property
    def before(self) -> int:
        """The number of the line before the first of these; 0 if they are the attempt's first."""
        return self.last - len(self.lines)

    @property
    def size(self) -> int:
        """The size of their text in bytes."""
        return sum(len(line["message"].encode()) for line in self.lines)

    def after(self, number: int) -> "Lines":
        """Return the lines with a number above `number`."""
        return Lines(self.last, self.lines[max(number - self.before, 0) :])

    def newest(self, most: int = MAX_LINES) -> "Lines":
        """Return the newest lines: at most `most`, and MAX_BYTES of text."""
        room, kept = MAX_BYTES, 0
        for line in reversed(self.lines[-most:]):
            room -= len(line["message"].encode())
            if room < 0:
                break
            kept += 1
        return self if kept == len(self.lines) else Lines(self.last, self.lines[len(self.lines) - kept :])

    def shown(self) -> list[Line]:
        """Return the newest lines for display; if earlier ones are missing, a first line says how many."""
        kept = self.newest()
        if kept.before == 0:
            return kept.lines
        kept = kept.newest(MAX_LINES - 1)
        return [dropped(kept.before, kept.lines[0]), *kept.lines] if kept.lines else []


NO_LINES = Lines(0, [])


def join(portions: Iterable[Lines]) -> Lines:
    """Join portions of one log, which may overlap and be in any order; returns the newest lines without a gap."""
    numbered = {
        number: line for portion in portions for number, line in enumerate(portion.lines, start=portion.before + 1)
    }
    last = first = max(numbered, default=0)
    while first - 1 in numbered:
        first -= 1
    return Lines(last, [numbered[number] for number in range(first, last + 1)] if numbered else []).newest()


def dropped(count: int, following: Line) -> Line:
    """Return a line that replaces `count` lines no longer kept, with the time of the line `following`."""
    return {"time": following["time"], "level": "WARNING", "message": f"{count} earlier lines dropped"}


class Portions:
    """Tracks the stored portions of one log, to know which of them newer lines make superfluous."""

    def __init__(self) -> None:
        self._portions: deque[tuple[int, int, int]] = deque()  # last, number of lines, size

    def superfluous(self, new: Lines) -> int:
        """Return the number of the last stored line that is no longer kept once `new` is stored; 0 for none."""
        count, size = len(new.lines), new.size
        for last, lines, bytes_ in reversed(self._portions):
            if count >= MAX_LINES or size >= MAX_BYTES:
                return last
            count, size = count + lines, size + bytes_
        return 0

    def add(self, new: Lines) -> None:
        """Record that `new` was stored and the portions it made superfluous were deleted."""
        deleted = self.superfluous(new)
        while self._portions and self._portions[0][0] <= deleted:
            self._portions.popleft()
        self._portions.append((new.last, len(new.lines), new.size))
