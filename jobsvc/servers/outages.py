"""Outages of a server, as seen by one process: one log line at the start of each, one at its end."""

import logging
import math
import threading
import time
from collections.abc import Callable, Container
from types import TracebackType

from jobsvc.config import settings
from jobsvc.printable import describe_exception

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries while a server is unavailable; each pause doubles the previous one."""


SHUTDOWN_PAUSE_SECONDS = 0.5
"""Longest pause between tries in a process that is shutting down."""


class Backoff:
    """Pauses that grow from FIRST_PAUSE to `longest` seconds."""

    def __init__(self, longest: float = LONGEST_PAUSE) -> None:
        self._longest = longest
        self.reset()

    def reset(self) -> None:
        """Start again with the shortest pause."""
        self._next = min(FIRST_PAUSE, self._longest)

    def next(self) -> float:
        """Return the length of the next pause in seconds."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause


class OutageLog:
    """Logs the start and end of each outage of one server, once for all threads of this process.

    effect: the outage's effect on jobs, for the log.
    """

    def __init__(
        self, name: str, logger: logging.Logger, effect: str = "jobs wait until it is available again"
    ) -> None:
        self.is_on = False
        self._name, self._logger, self._effect = name, logger, effect
        self.start_afresh()

    def start_afresh(self) -> None:
        """Replace the lock; for a forked process."""
        self._lock = threading.Lock()  # fork: another thread may hold it in the parent

    def begin(self, cause: object) -> None:
        """Log the start of an outage with its cause, unless it is known."""
        with self._lock:
            was_on, self.is_on = self.is_on, True
        if not was_on:
            self._logger.warning("%s: unavailable, %s: %s", self._name, self._effect, cause)

    def end(self) -> None:
        """Log the end of the outage, if there is one."""
        with self._lock:
            was_on, self.is_on = self.is_on, False
        if was_on:
            self._logger.info("%s: available again, what waits goes on", self._name)


PROBE = "probe"
"""The task that checks what every other task needs; its success ends an outage whose cause it would have detected."""


class OutageTracker:
    """Tracks whether one server is available. `with server.on(task):` suppresses its failures.

    With a logger, each outage is logged once; it ends when the failed task succeeds, or PROBE if `met_by_probe`
    is true for the failure. Without a logger any success ends it; that is for Postgres, whose outages `db` logs.
    """

    def __init__(
        self,
        name: str,
        failure: type[Exception],
        logger: logging.Logger | None = None,
        met_by_probe: Callable[[Exception], bool] = lambda _: True,
    ) -> None:
        self._failure, self._met_by_probe = failure, met_by_probe
        self._log = OutageLog(name, logger) if logger else None
        self._up_since: float | None = -math.inf  # None while it is unavailable
        self._ends_with: Container[str] = ()
        self.retry_at = 0.0
        """Monotonic seconds of the next try after a failure; in the past while the server is available."""
        self._backoff = Backoff(min(LONGEST_PAUSE, settings().JOBSVC_SWEEP_SECONDS))

    @property
    def is_available(self) -> bool:
        """True if the server is available, as of the last task."""
        return self._up_since is not None

    @property
    def seconds_up(self) -> float:
        """Seconds for which the server has been available; infinite if no failure was seen."""
        return 0.0 if self._up_since is None else time.monotonic() - self._up_since

    @property
    def seconds_to_retry(self) -> float:
        """Seconds until the next try; 0 while the server is available."""
        return max(self.retry_at - time.monotonic(), 0.0)

    @property
    def pause(self) -> float:
        """Seconds to wait before a task that has just failed is tried again."""
        return max(self.seconds_to_retry, FIRST_PAUSE)

    def shorten_pauses(self) -> None:
        """Retry now, and limit pauses to SHUTDOWN_PAUSE_SECONDS from now on; for a process that is shutting down."""
        self._backoff = Backoff(SHUTDOWN_PAUSE_SECONDS)
        self.retry_at = 0.0

    def is_worth_a_try(self) -> bool:
        """Return True if the server is available, or the pause after its last failure is over."""
        return self.seconds_to_retry == 0.0

    def on(self, task: str) -> "_Task":
        """Return a context manager for one task; it suppresses the server's failures."""
        return _Task(self, task)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.leave("", error)

    def leave(self, task: str, error: BaseException | None) -> bool:
        """Record the outcome of a task; returns True if its error is suppressed."""
        if isinstance(error, self._failure):
            if getattr(error, "is_outage", True):
                self._begin(task, error)
            else:
                self.retry_at = time.monotonic() + FIRST_PAUSE
            return True
        if error is None and not self.is_available and (self._log is None or task in self._ends_with):
            self._up_since = time.monotonic()
            self.retry_at = 0.0
            self._backoff.reset()
            if self._log:
                self._log.end()
        return False

    def _begin(self, task: str, error: Exception) -> None:
        self._up_since = None
        self._ends_with = (task, PROBE) if self._met_by_probe(error) else (task,)
        self.retry_at = time.monotonic() + self._backoff.next()
        if self._log:
            self._log.begin(describe_exception(error))


class _Task:
    def __init__(self, server: OutageTracker, name: str) -> None:
        self._server, self._name = server, name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._server.leave(self._name, error)
