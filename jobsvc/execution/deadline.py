"""Deadline of one attempt: when it passes, an exception is raised inside the running handler."""

import _signal  # `getsignal` without conversion to an enum: 0.04 us instead of 2
import contextlib
import ctypes
import math
import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import FrameType
from typing import Any

from jobsvc.jobs import StartedAttempt
from jobsvc.strict_json import clean

LAST_SECONDS = 0.5
"""Time for `work` to finish after `limited` has raised LimitReached in it."""

CANCEL_NOTICE_SECONDS = 1.0
"""Seconds between `ctx.cancelled` becoming True and Cancelled being raised in the handler."""

CANCEL_GRACE_SECONDS = 1.5
"""Seconds a handler gets to stop after Cancelled. With the time to notice a cancel, it must stay well below 5 s."""


class Interruption(BaseException):
    """Raised by a clock in a handler. Not an Exception, so that `except Exception` doesn't swallow it."""


class AttemptTimeout(Interruption):
    """The attempt took longer than its timeout."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(f"the attempt took longer than its {'time' if seconds is None else f'{seconds:g} s'}")


class HandBack(Interruption):
    """The worker shuts down, and the handler did not finish within the time left."""


class Cancelled(Interruption):
    """A cancel of the job was requested."""


class LimitReached(Interruption):
    """The time limit of `Deadline.limited` was reached."""


class Deadline:
    """Deadline of an attempt on the main thread, by SIGALRM: `start` before the handler, `close` after it.

    RQ's own timer counts whole seconds only. `on_progress` is called in the handler's thread on new progress; readers
    of `last_progress` first set `is_progress_new` to False (race).
    """

    def __init__(self, started: StartedAttempt, on_progress: Callable[[], None] = lambda: None) -> None:
        self.reason: BaseException = AttemptTimeout(started.timeout)
        self.deadline = math.inf
        self.is_over = False
        self.is_struck = False
        """True if the reason was raised in the handler, even if the handler swallowed it."""
        self.is_limit_struck = False
        """True if the time limit of `limited` was reached."""
        self._limit = math.inf  # monotonic seconds
        self.is_cancelled = False
        self.handler_knows = False
        self.last_progress: dict[str, Any] | None = None
        self.is_progress_new = False
        self._timeout = started.timeout
        self._on_progress = on_progress

    def start(self) -> None:
        """Start the timeout; once it has passed, the reason is raised in the handler."""
        self.deadline = time.monotonic() + self._timeout
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
        """Disarm the timer. An Interruption raised meanwhile is dropped, since the handler is over.

        The reason may still be raised, once, at the call itself before the loop begins: then call again.
        """
        while True:
            try:
                return self._disarm()
            except Interruption:
                self.is_struck = False

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
        return min(self._limit, math.inf if self.is_over else self.deadline)

    def stop(self, reason: BaseException, left: float) -> None:
        """Raise `reason` in the handler in `left` seconds, unless its deadline is earlier. From any thread."""
        deadline = time.monotonic() + left
        if not self.is_over and deadline < self.deadline:
            self.reason, self.deadline = reason, deadline
            self._arm()

    def cancel(self, left: float) -> None:
        """Make `ctx.cancelled` True, and raise Cancelled in the handler in `left` seconds."""
        self.is_cancelled = True
        self.stop(Cancelled("the job was cancelled"), left)

    def tell_cancelled(self) -> bool:
        """Return True if a cancel was requested (`ctx.cancelled`); `handler_knows` records that answer."""
        self.handler_knows = self.is_cancelled
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
            raise self._strike()

    def _strike(self) -> BaseException:
        """Record that an exception is raised now, and return it."""
        if self._limit < math.inf:
            self._limit, self.is_limit_struck = math.inf, True
            return LimitReached("the time is up")
        self.is_struck = True
        return self.reason


_on_main_thread: Deadline | None = None


def on_alarm(signum: int, frame: FrameType | None) -> None:
    """Handle SIGALRM: raise what is due in the attempt on the main thread."""
    if _on_main_thread:
        _on_main_thread.fire()


class _Replaced(BaseException):
    """Raised in a thread to replace an exception that was thrown into it too late."""


class ThreadDeadline(Deadline):
    """Deadline of an attempt on another thread: it raises once the handler runs Python code again.

    Only the reason's class can be raised there (PyThreadState_SetAsyncExc), so the exception lacks its message.
    """

    def __init__(self, started: StartedAttempt, on_progress: Callable[[], None] = lambda: None) -> None:
        super().__init__(started, on_progress)
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._has_thrown = False

    def _disarm(self) -> None:
        with self._lock:
            self.is_over = True
            has_thrown, self._has_thrown = self._has_thrown, False
        if has_thrown:
            # Withdrawing a pending exception would make CPython 3.11 check for it at each call, and loop for ever in a
            # thread with a trace function. So replace it with another exception, and catch that here.
            with contextlib.suppress(_Replaced):
                _throw(self._thread, _Replaced)
                while True:
                    pass
        _timer.forget(self)

    def _begin(self) -> None:
        self._arm()

    def limited(self, seconds: float, work: Callable[[], None]) -> None:
        """As in Deadline, but in a thread of its own, which is left behind if it hangs in C code."""
        failures: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=copy_context().run, args=(run,), name="limited", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            self.is_limit_struck = True
            _throw(thread.ident or 0, LimitReached)
            thread.join(LAST_SECONDS)
        if thread.is_alive():
            raise LimitReached("the time is up")
        if failures:
            raise failures.pop()

    def _arm(self) -> None:
        _timer.watch(self)

    def fire(self) -> None:
        """Raise the reason, or LimitReached, in the attempt's thread if it is due and not disarmed."""
        with self._lock:
            if self.fires_at <= time.monotonic():
                self._has_thrown = True
                _throw(self._thread, type(self._strike()))


def _throw(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


class _Timer:
    """Fires the deadlines of attempts on threads, from one thread that starts with the first of them."""

    def __init__(self) -> None:
        self._clocks: set[ThreadDeadline] = set()
        self._changed = threading.Condition()
        self._next = math.inf
        self._thread: threading.Thread | None = None

    def watch(self, clock: ThreadDeadline) -> None:
        """Fire this clock when it is due."""
        with self._changed:
            self._clocks.add(clock)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
                self._thread.start()
            if clock.fires_at < self._next:
                self._changed.notify()

    def forget(self, clock: ThreadDeadline) -> None:
        """Stop watching this clock."""
        with self._changed:
            self._clocks.discard(clock)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._next = min((clock.fires_at for clock in self._clocks), default=math.inf)
                left = self._next - time.monotonic()
                if left > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                    continue
                due = [clock for clock in self._clocks if clock.fires_at <= time.monotonic()]
                self._clocks.difference_update(due)
            for clock in due:
                clock.fire()


_timer = _Timer()
