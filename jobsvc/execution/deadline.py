"""Deadline of one attempt: when it passes, an exception is raised inside the running handler."""

import _signal  # `getsignal` without conversion to an enum: 0.04 us instead of 2
import math
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from jobsvc.execution.interruptions import AttemptTimeout, Cancelled, Interruption, LimitReached
from jobsvc.jobs import StartedAttempt
from jobsvc.strict_json import clean


class Deadline:
    """Deadline of an attempt on the main thread, by SIGALRM: `start` before the handler, `close` after it.

    RQ's own timer counts whole seconds only. `on_progress` is called in the handler's thread on new progress; readers
    of `last_progress` first set `is_progress_new` to False (race).
    """

    def __init__(self, started: StartedAttempt, on_progress: Callable[[], None] = lambda: None) -> None:
        self.reason: BaseException = AttemptTimeout(started.timeout)
        self.reason_at = math.inf
        self.is_over = False
        self.has_fired = False
        """True if the reason was raised in the handler, even if the handler swallowed it."""
        self.is_limit_reached = False
        """True if the time limit of `limited` was reached."""
        self._limit = math.inf  # monotonic seconds
        self.is_cancelled = False
        self.handler_saw_cancel = False
        self.last_progress: dict[str, Any] | None = None
        self.is_progress_new = False
        self._timeout = started.timeout
        self._on_progress = on_progress

    def start(self) -> None:
        """Start the timeout; once it has passed, the reason is raised in the handler."""
        self.reason_at = min(self.reason_at, time.monotonic() + self._timeout)  # a cancel may have come before
        self._begin()

    def _begin(self) -> None:
        global _on_main_thread
        _on_main_thread = self
        if _signal.getsignal(signal.SIGALRM) is not on_alarm:  # first attempt here, or a handler set its own
            signal.signal(signal.SIGALRM, on_alarm)
        self._arm()

    def close(self) -> None:
        """Disarm the timer."""
        self.pause()

    def pause(self) -> None:
        """Disarm the timer. An Interruption raised in here is dropped, since the handler is over.

        The reason may still be raised, once, at the call itself before the loop begins: then call again.
        """
        while True:
            try:
                return self._disarm()
            except Interruption:
                self.has_fired = False

    def limited(self, seconds: float, work: Callable[[], None]) -> None:
        """Call `work`, and raise LimitReached in it after `seconds`. Only to be called after `pause`."""
        self._limit = time.monotonic() + seconds
        try:
            self._arm()
            work()
        finally:
            self._disarm()

    def _disarm(self) -> None:
        self.is_over = True
        self._limit = math.inf
        signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def fires_at(self) -> float:
        """Return when (monotonic seconds) to raise something; infinity for never."""
        return min(self._limit, math.inf if self.is_over else self.reason_at)

    @property
    def is_overdue(self) -> bool:
        """Return True if the reason is due, whether it could be raised or not."""
        return self.reason_at <= time.monotonic()

    def stop(self, reason: BaseException, left: float) -> None:
        """Raise `reason` in the handler in `left` seconds, unless its deadline is earlier. From any thread."""
        reason_at = time.monotonic() + left
        if not self.is_over and reason_at < self.reason_at:
            self.reason, self.reason_at = reason, reason_at
            self._arm()

    def cancel(self, left: float) -> None:
        """Make `ctx.cancelled` True, and raise Cancelled in the handler in `left` seconds."""
        self.is_cancelled = True
        self.stop(Cancelled("the job was cancelled"), left)

    def check_cancelled(self) -> bool:
        """Return True if a cancel was requested (`ctx.cancelled`); `handler_saw_cancel` records that answer."""
        self.handler_saw_cancel = self.is_cancelled
        return self.is_cancelled

    def progress(self, percent: float, message: str | None) -> None:
        """Record the handler's progress."""
        self.last_progress = {"percent": float(percent), "message": None if message is None else clean(str(message))}
        self.is_progress_new = True
        self._on_progress()

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(self.fires_at - time.monotonic(), 0.001))

    def fire(self) -> None:
        """Raise the reason, or LimitReached, if it is due."""
        if self.fires_at == math.inf:
            return
        if time.monotonic() < self.fires_at:  # the signal was for the previous attempt
            self._arm()
        else:
            raise self._take_reason()

    def _take_reason(self) -> BaseException:
        """Record that an exception is raised now, and return it."""
        if self._limit < math.inf:
            self._limit, self.is_limit_reached = math.inf, True
            return LimitReached("the time is up")
        self.has_fired = True
        return self.reason


_on_main_thread: Deadline | None = None


def on_alarm(signum: int, frame: FrameType | None) -> None:
    """Handle SIGALRM: raise what is due in the attempt on the main thread."""
    if _on_main_thread:
        _on_main_thread.fire()
