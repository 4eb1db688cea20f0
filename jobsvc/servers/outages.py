"""The outages of a server, as one process sees them: one log line when one begins, one when it is over."""

import logging
import math
import threading
import time
from collections.abc import Callable, Container
from types import TracebackType

from jobsvc.config import settings
from jobsvc.printable import describe_exception

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds between two tries while a server is unavailable; each pause is twice the one before."""


HASTE_SECONDS = 0.5
"""The longest pause of a process that is about to end."""


class Backoff:
    """Pauses that grow from FIRST_PAUSE to `longest` seconds."""

    def __init__(self, longest: float = LONGEST_PAUSE) -> None:
        self._longest = longest
        self.reset()

    def reset(self) -> None:
        """Begin anew with the shortest pause."""
        self._next = min(FIRST_PAUSE, self._longest)

    def next(self) -> float:
        """Return the seconds of this pause."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause


class OutageLog:
    """Logs the begin and the end of each outage of one server, once for all threads of this process.

    `effect` says what the outage means for those who wait.
    """

    def __init__(
        self, name: str, logger: logging.Logger, effect: str = "jobs wait until it is available again"
    ) -> None:
        self.is_on = False
        self._name, self._logger, self._effect = name, logger, effect
        self.start_afresh()

    def start_afresh(self) -> None:
        """Use a lock of its own in a forked process."""
        self._lock = threading.Lock()  # fork: another thread may hold it in the parent

    def begin(self, cause: object) -> None:
        """Log the outage with its cause, unless it is known."""
        with self._lock:
            was_on, self.is_on = self.is_on, True
        if not was_on:
            self._logger.warning("%s: unavailable, %s: %s", self._name, self._effect, cause)

    def end(self) -> None:
        """Log that the server is available again, if it was not."""
        with self._lock:
            was_on, self.is_on = self.is_on, False
        if was_on:
            self._logger.info("%s: available again, what waits goes on", self._name)


PROBE = "probe"
"""The task that asks for what all work needs; its success ends an outage whose cause it would have met."""


class OutageTracker:
    """Swallows the failures of what one server is asked within `with server.on(task):`.

    With a logger, each outage is logged once, and is over when the task that failed has worked, or PROBE if the
    failure was one of `met_by_probe`. Without one, any success ends it: of Postgres, whose outages `db` logs.
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
        self._retry_at = 0.0
        self._backoff = Backoff(min(LONGEST_PAUSE, settings().JOBSVC_SWEEP_SECONDS))

    @property
    def is_available(self) -> bool:
        """Whether it is available, as far as one knows."""
        return self._up_since is not None

    @property
    def seconds_up(self) -> float:
        """Seconds for which it has been available, as far as one knows; endless, if it always was."""
        return 0.0 if self._up_since is None else time.monotonic() - self._up_since

    @property
    def seconds_to_retry(self) -> float:
        """Seconds until it is worth a try; 0 while it is available."""
        return 0.0 if self.is_available else max(self._retry_at - time.monotonic(), 0.0)

    @property
    def pause(self) -> float:
        """Seconds until what has just failed is tried again."""
        return max(self.seconds_to_retry, FIRST_PAUSE)

    def hurry(self) -> None:
        """Pause no longer than HASTE_SECONDS from now on, since there is little time left."""
        self._backoff = Backoff(HASTE_SECONDS)
        self._retry_at = 0.0

    def is_worth_a_try(self) -> bool:
        """Return True if it is available, as far as one knows, or the pause after the last failure is over."""
        return self.seconds_to_retry == 0.0

    def on(self, task: str) -> "_Task":
        """Return a context for one task; a failure within it is swallowed."""
        return _Task(self, task)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.leave("", error)

    def leave(self, task: str, error: BaseException | None) -> bool:
        """Note how a task went; returns whether its error is swallowed."""
        if isinstance(error, self._failure):
            if getattr(error, "is_outage", True):
                self._begin(task, error)
            return True
        if error is None and not self.is_available and (self._log is None or task in self._ends_with):
            self._up_since = time.monotonic()
            self._backoff.reset()
            if self._log:
                self._log.end()
        return False

    def _begin(self, task: str, error: Exception) -> None:
        self._up_since = None
        self._ends_with = (task, PROBE) if self._met_by_probe(error) else (task,)
        self._retry_at = time.monotonic() + self._backoff.next()
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
