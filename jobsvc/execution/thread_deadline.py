"""Deadline of an attempt on a thread other than the main thread."""

import contextlib
import ctypes
import math
import threading
import time
from collections.abc import Callable
from contextvars import copy_context

from jobsvc.execution.deadline import Deadline
from jobsvc.execution.interruptions import LimitReached
from jobsvc.jobs import StartedAttempt

LAST_SECONDS = 0.5
"""Time for `work` to finish after `limited` has raised LimitReached in it."""


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
        _timer.remove(self)

    def _begin(self) -> None:
        self._arm()

    def limited(self, seconds: float, work: Callable[[], None]) -> None:
        """As in Deadline, but in a thread of its own."""
        limited_in_thread(self, seconds, work)

    def _arm(self) -> None:
        _timer.add(self)

    def fire(self) -> None:
        """Raise the reason, or LimitReached, in the attempt's thread if it is due and not disarmed."""
        with self._lock:
            if self.fires_at <= time.monotonic():
                self._has_thrown = True
                _throw(self._thread, type(self._take_reason()))


def limited_in_thread(deadline: Deadline, seconds: float, work: Callable[[], None]) -> None:
    """Do what `Deadline.limited` does in a thread of its own, which is abandoned if it hangs in C code."""
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
        deadline.is_limit_reached = True
        _throw(thread.ident or 0, LimitReached)
        thread.join(LAST_SECONDS)
    if thread.is_alive():
        raise LimitReached("the time is up")
    if failures:
        raise failures.pop()


def _throw(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


class _Timer:
    """Fires the deadlines of attempts on threads, from one thread that starts with the first of them."""

    def __init__(self) -> None:
        self._deadlines: set[ThreadDeadline] = set()
        self._changed = threading.Condition()
        self._next = math.inf
        self._thread: threading.Thread | None = None

    def add(self, deadline: ThreadDeadline) -> None:
        """Fire this deadline when it is due."""
        with self._changed:
            self._deadlines.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
                self._thread.start()
            if deadline.fires_at < self._next:
                self._changed.notify()

    def remove(self, deadline: ThreadDeadline) -> None:
        """Do not fire this deadline any more."""
        with self._changed:
            self._deadlines.discard(deadline)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._next = min((deadline.fires_at for deadline in self._deadlines), default=math.inf)
                left = self._next - time.monotonic()
                if left > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                    continue
                due = [deadline for deadline in self._deadlines if deadline.fires_at <= time.monotonic()]
                self._deadlines.difference_update(due)
            for deadline in due:
                deadline.fire()


_timer = _Timer()
