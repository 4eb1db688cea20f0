"""The time of one attempt: when it is over, an exception is raised in the handler, wherever that is."""

import _signal  # whose `getsignal` makes no enum of the result: 0.04 us instead of 2
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
"""How long `limited` waits for what it has raised to be handled."""

CANCEL_LOOK_SECONDS = 1.0
"""How often it is looked whether a job was called off."""

CANCEL_NOTICE_SECONDS = 1.0
"""How long a handler that looks at `ctx.cancelled` has for itself, before Cancelled is raised in it."""

CANCEL_GRACE_SECONDS = 1.5
"""How long it may take to stop then. With what it takes to notice a cancel, it has to stay well below 5 s."""


class Interruption(BaseException):
    """Raised by a clock in the code of a handler. No Exception, so that `except Exception` doesn't swallow it."""


class AttemptTimeout(Interruption):
    """The handler's time is up."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(f"the attempt took longer than its {'time' if seconds is None else f'{seconds:g} s'}")


class HandBack(Interruption):
    """The worker shuts down, and the handler took longer than the time that was left to it."""


class Cancelled(Interruption):
    """Somebody called the job off."""


class LimitReached(Interruption):
    """The time for a piece of work after the handler is up: see `Deadline.limited`."""


class Deadline:
    """The time of an attempt on the main thread, kept by a signal: `start` before the handler, `close` after it.

    RQ's own timer counts whole seconds only. `on_progress` is called in the handler's thread when there is new
    progress; who then reads `last_progress` sets `is_progress_new` to False before.
    """

    def __init__(self, started: StartedAttempt, on_progress: Callable[[], None] = lambda: None) -> None:
        self.reason: BaseException = AttemptTimeout(started.timeout)
        self.deadline = math.inf
        self.is_over = False
        self.is_struck = False
        """Whether the reason was raised in the handler, whatever that made of it."""
        self.is_limit_struck = False
        """Whether the time of `limited` was over."""
        self._limit = math.inf  # monotonic seconds
        self.is_cancelled = False
        self.handler_knows = False
        self.last_progress: dict[str, Any] | None = None
        self.is_progress_new = False
        self._timeout = started.timeout
        self._on_progress = on_progress

    def start(self) -> None:
        """Raise the reason when the time is up, which begins now."""
        self.deadline = time.monotonic() + self._timeout
        self._begin()

    def _begin(self) -> None:
        global _on_main_thread
        _on_main_thread = self
        if _signal.getsignal(signal.SIGALRM) is not on_alarm:  # the first one here, or a handler has set its own
            signal.signal(signal.SIGALRM, on_alarm)
        self._arm()

    def close(self) -> None:
        """Raise nothing any more."""
        self.pause()

    def pause(self) -> None:
        """Don't raise the reason any more; what is raised in the midst of this is dropped, since the handler is over.

        The reason may still be raised at the call itself, before this begins: once, so the caller calls again.
        """
        while True:
            try:
                return self._disarm()
            except Interruption:
                self.is_struck = False

    def limited(self, seconds: float, work: Callable[[], None]) -> None:
        """Call `work`, and raise LimitReached in it after `seconds`; after `pause`."""
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
        """When (monotonic seconds) something is to be raised."""
        return min(self._limit, math.inf if self.is_over else self.deadline)

    def stop(self, reason: BaseException, left: float) -> None:
        """Raise `reason` in the handler in `left` seconds, unless its time is up before. From any thread."""
        deadline = time.monotonic() + left
        if not self.is_over and deadline < self.deadline:
            self.reason, self.deadline = reason, deadline
            self._arm()

    def cancel(self, left: float) -> None:
        """The job was called off: `ctx.cancelled` says so, and in `left` seconds Cancelled is raised."""
        self.is_cancelled = True
        self.stop(Cancelled("the job was cancelled"), left)

    def tell_cancelled(self) -> bool:
        """Whether the job was called off; from when that is told, `handler_knows`."""
        self.handler_knows = self.is_cancelled
        return self.is_cancelled

    def progress(self, percent: float, message: str | None) -> None:
        """Take note of the handler's progress."""
        self.last_progress = {"percent": float(percent), "message": None if message is None else clean(str(message))}
        self.is_progress_new = True
        self._on_progress()

    def _arm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(self.fires_at - time.monotonic(), 0.001))

    def fire(self) -> None:
        """Raise the reason, or LimitReached, if the time is up."""
        if self.fires_at == math.inf:
            return
        if time.monotonic() < self.fires_at:  # meant for the attempt before, which was over
            self._arm()
        else:
            raise self._strike()

    def _strike(self) -> BaseException:
        """Note that something is raised now; returns what."""
        if self._limit < math.inf:
            self._limit, self.is_limit_struck = math.inf, True
            return LimitReached("the time is up")
        self.is_struck = True
        return self.reason


_on_main_thread: Deadline | None = None


def on_alarm(signum: int, frame: FrameType | None) -> None:
    """Handle SIGALRM: raise what the clock of the attempt on the main thread has to raise."""
    if _on_main_thread:
        _on_main_thread.fire()


class _Replaced(BaseException):
    """Raised in a thread in place of what was thrown into it too late."""


class ThreadDeadline(Deadline):
    """The same for an attempt on another thread, where an exception strikes once the handler runs Python again.

    Only a class can be raised there: the reason's, whose instance has none of its texts.
    """

    def __init__(self, started: StartedAttempt, on_progress: Callable[[], None] = lambda: None) -> None:
        super().__init__(started, on_progress)
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._has_thrown = False

    def _disarm(self) -> None:
        with self._lock:
            self.is_over = True
            self._limit = math.inf
            has_thrown, self._has_thrown = self._has_thrown, False
        if has_thrown:
            # To take back what hasn't struck would leave CPython 3.11 looking for it at each call, and for ever in a
            # thread with a trace function. So another exception takes its place, and is caught here.
            with contextlib.suppress(_Replaced):
                _throw(self._thread, _Replaced)
                while True:
                    pass
        _timer.forget(self)

    def _begin(self) -> None:
        self._arm()

    def limited(self, seconds: float, work: Callable[[], None]) -> None:
        """As for the main thread. What sits in C then, where nothing can be raised, goes on in a thread of its own."""
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
        """Raise the reason, or LimitReached, in the attempt's thread, if it is not over."""
        with self._lock:
            if self.fires_at <= time.monotonic():
                self._has_thrown = True
                _throw(self._thread, type(self._strike()))


def _throw(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


class _Timer:
    """Rings the clocks of threads, from a thread of its own, which is started with the first one."""

    def __init__(self) -> None:
        self._clocks: set[ThreadDeadline] = set()
        self._changed = threading.Condition()
        self._next = math.inf
        self._thread: threading.Thread | None = None

    def watch(self, clock: ThreadDeadline) -> None:
        """Ring at the clock's deadline."""
        with self._changed:
            self._clocks.add(clock)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
                self._thread.start()
            if clock.fires_at < self._next:
                self._changed.notify()

    def forget(self, clock: ThreadDeadline) -> None:
        """Ring it no more."""
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
