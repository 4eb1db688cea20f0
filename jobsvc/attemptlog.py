"""What an attempt says while it runs: `ctx.log`, and the records of `logging`, kept to be stored with its end."""

import logging
from collections import deque
from contextvars import ContextVar
from datetime import UTC, datetime
from itertools import count
from typing import Any

from jobsvc import logs
from jobsvc.strictjson import clean
from jobsvc.wire import show_time

MAX_LINES = 1000
MAX_BYTES = 64 * 1024
"""Of an attempt's log the newest lines are kept: at most MAX_LINES, and MAX_BYTES of text."""

MAX_MESSAGE = 4 * 1024
"""Characters of one line; what is longer is cut."""

OUR_OWN = ("jobsvc", "rq")
"""The loggers, and those below them, whose records are about the attempt, not of it."""


class AttemptLog:
    """The log of one attempt; any thread may add to it. Within `with` it takes in what the attempt logs."""

    def __init__(self) -> None:
        self._numbers = count(1)
        # Without a lock: a timeout may strike in the midst of `add`, and must leave none held.
        self._lines: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_LINES)

    def add(self, message: str, level: str = "INFO", at: float | None = None) -> None:
        """Add a line; `at` is seconds since the epoch, now if it is left out."""
        moment = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        text = clean(message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…")
        self._lines.append((next(self._numbers), {"time": show_time(moment), "level": level, "message": text}))

    def lines(self) -> list[dict[str, Any]]:
        """The newest lines, [{time, level, message}]; before them, where some were dropped, one that says how many."""
        if not self._lines:
            return []
        kept: deque[dict[str, Any]] = deque()
        room, dropped = MAX_BYTES, 0
        for number, line in reversed(self._lines.copy()):
            room -= len(line["message"].encode())
            if room < 0 or (len(kept) == MAX_LINES - 1 and number > 1):
                dropped = number
                break
            kept.appendleft(line)
        if dropped:
            kept.appendleft(
                {"time": kept[0]["time"], "level": "WARNING", "message": f"{dropped} earlier lines dropped"}
            )
        return list(kept)

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
