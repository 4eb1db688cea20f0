"""The log of a running attempt: `ctx.log`, and the records of `logging`, kept until they are stored."""

import logging
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count

from jobsvc import logs
from jobsvc.jobs.log_lines import MAX_LINES, NO_LINES, Line, Lines
from jobsvc.jobs.serialize import show_time
from jobsvc.servers import pgclock
from jobsvc.strict_json import clean

MAX_MESSAGE = 4 * 1024
"""Characters of one line; what is longer is cut."""

MAX_LEVEL = 32
"""Characters of a level's name, which a handler may have made up."""

OUR_OWN = ("jobsvc", "rq")
"""The loggers, and those below them, whose records are about the attempt, not of it."""


class AttemptLog:
    """The log of one attempt; any thread may add to it. Within `with` it takes in what the attempt logs.

    sent: the number of the last line that was handed on to be stored while the attempt runs.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.on_new: Callable[[], None] = lambda: None
        """Called after a line was added, in the thread that added it."""
        self._numbers = count(1)
        # Without a lock: a timeout may strike in the midst of `add`, and must leave none held.
        self._lines: deque[tuple[Line, int]] = deque(maxlen=MAX_LINES)

    def add(self, message: str, level: str = "INFO", at: float | None = None) -> None:
        """Add a line; `at` is seconds since the epoch by this host's clock, now if it is left out."""
        moment = datetime.fromtimestamp(pgclock.now() if at is None else pgclock.from_local(at), UTC)
        text = clean(message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…")
        line = {"time": show_time(moment), "level": clean(level[:MAX_LEVEL]), "message": text}
        # One call in C, so that lines of several threads are numbered in the order in which they stand here.
        self._lines.extend(zip((line,), self._numbers))  # noqa: B905  # strict would be a step more
        self.on_new()

    @property
    def has_unsent(self) -> bool:
        """Return True if lines were added since `sent`."""
        lines = self._lines
        return bool(lines) and lines[-1][1] > self.sent

    def unsent(self) -> Lines:
        """Return the lines after `sent`, the newest that may be kept."""
        return self.kept().after(self.sent) if self.has_unsent else NO_LINES

    def kept(self) -> Lines:
        """Return the newest lines, whether sent or not."""
        lines = self._lines.copy()
        return Lines(lines[-1][1] if lines else 0, [line for line, _ in lines]).newest()

    def __enter__(self) -> "AttemptLog":
        root = logging.getLogger()
        if _keeper not in root.handlers:
            logs.to_stderr()  # while root has no handler but ours, a record would show nowhere else
            root.addHandler(_keeper)
        self._token = _mine.set(self)
        _running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _running.remove(self)
        _mine.reset(self._token)


_mine: ContextVar[AttemptLog | None] = ContextVar("attempt_log", default=None)
_running: list[AttemptLog] = []


def _whose() -> AttemptLog | None:
    """The log of the attempt that a record belongs to.

    A thread that a handler started doesn't know its attempt; it is told while that is the only one here.
    """
    mine, running = _mine.get(), list(_running)
    return mine or (running[0] if len(running) == 1 else None)


class _Keeper(logging.Handler):
    """Keeps, for its attempt, what reaches the root logger at INFO or above."""

    _format = logging.Formatter("%(message)s").format  # with the traceback of `logger.exception`

    def createLock(self) -> None:  # noqa: N802
        self.lock = None  # see AttemptLog

    def emit(self, record: logging.LogRecord) -> None:
        log = _whose()
        if log is None or record.name.partition(".")[0] in OUR_OWN:
            return
        try:
            log.add(self._format(record), record.levelname, record.created)
        except Exception:
            self.handleError(record)


_keeper = _Keeper(logging.INFO)
