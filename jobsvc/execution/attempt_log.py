"""The log of a running attempt: `ctx.log` lines and `logging` records, kept until they are stored."""

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
"""Characters of one line; longer ones are cut."""

MAX_LEVEL = 32
"""Characters of a level's name; a handler may define its own."""

OUR_OWN = ("jobsvc", "rq")
"""Loggers (with their descendants) whose records are about an attempt and not part of its log."""


class AttemptLog:
    """The log of one attempt; thread-safe. Within `with`, it captures the attempt's `logging` records.

    sent: number of the last line that was reported while the attempt runs.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.on_new: Callable[[], None] = lambda: None
        """Called after a line was added, in the thread that added it."""
        self._numbers = count(1)
        # No lock: a timeout may be raised inside `add` and would leave it locked (deadlock).
        self._lines: deque[tuple[Line, int]] = deque(maxlen=MAX_LINES)

    def add(self, message: str, level: str = "INFO", at: float | None = None) -> None:
        """Add a line; `at` is seconds since the epoch by this host's clock, by default now."""
        moment = datetime.fromtimestamp(pgclock.now() if at is None else pgclock.from_local(at), UTC)
        text = clean(message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…")
        line = {"time": show_time(moment), "level": clean(level[:MAX_LEVEL]), "message": text}
        # One C call under the GIL (race): lines of several threads are numbered in the order in which they are added.
        self._lines.extend(zip((line,), self._numbers))  # noqa: B905  # strict would be a step more
        self.on_new()

    @property
    def has_unsent(self) -> bool:
        """Return True if lines were added since `sent`."""
        lines = self._lines
        return bool(lines) and lines[-1][1] > self.sent

    def unsent(self) -> Lines:
        """Return the lines after `sent`, reduced to the newest that may be stored."""
        return self.kept().after(self.sent) if self.has_unsent else NO_LINES

    def kept(self) -> Lines:
        """Return the newest lines, whether sent or not."""
        lines = self._lines.copy()
        return Lines(lines[-1][1] if lines else 0, [line for line, _ in lines]).newest()

    def __enter__(self) -> "AttemptLog":
        root = logging.getLogger()
        if _keeper not in root.handlers:
            logs.to_stderr()  # if root had only our handler, records would appear nowhere else
            root.addHandler(_keeper)
        self._token = _current.set(self)
        _running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _running.remove(self)
        _current.reset(self._token)


_current: ContextVar[AttemptLog | None] = ContextVar("attempt_log", default=None)
_running: list[AttemptLog] = []


def _log_of_thread() -> AttemptLog | None:
    """Return the log of the attempt that logs in this thread.

    A thread started by a handler doesn't inherit its attempt: use the running attempt if there is only one.
    """
    current, running = _current.get(), list(_running)
    return current or (running[0] if len(running) == 1 else None)


class _Keeper(logging.Handler):
    """Adds records that reach the root logger at INFO or above to their attempt's log."""

    _format = logging.Formatter("%(message)s").format  # with the traceback of `logger.exception`

    def createLock(self) -> None:  # noqa: N802
        self.lock = None  # see AttemptLog

    def handle(self, record: logging.LogRecord) -> bool:
        """Add the record; from Python 3.13 on, the method of the base class needs a lock."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        log = _log_of_thread()
        if log is None or record.name.partition(".")[0] in OUR_OWN:
            return
        try:
            log.add(self._format(record), record.levelname, record.created)
        except Exception:
            self.handleError(record)


_keeper = _Keeper(logging.INFO)
