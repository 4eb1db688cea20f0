"""What an attempt of an async handler may leave on its event loop: tasks, and calls in threads."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet

from jobsvc.jobs import StartedAttempt

logger = logging.getLogger("jobsvc.worker")

LEFTOVER_SECONDS = 1.0
"""Time for tasks that an attempt has left to end after their cancellation."""

EXECUTOR_THREADS = 32
"""Threads of the default executor (`asyncio.to_thread`): the maximum of Python's own."""

MAX_ABANDONED = 100
"""Calls of ended attempts that may still run before the process is to be replaced."""

T = TypeVar("T")


class Executor(ThreadPoolExecutor):
    """A loop's default executor. A thread that still runs a call of an ended attempt doesn't count as one of it."""

    def __init__(self) -> None:
        super().__init__(EXECUTOR_THREADS, "asyncio")
        self.abandoned = 0
        """Calls of ended attempts that still run."""
        self._unfinished = 0
        self._counting = Lock()

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Submit a call as ThreadPoolExecutor does; it belongs to the attempt of the current context."""
        future = super().submit(call, *args, **kwargs)
        if leftovers := current_leftovers.get():
            leftovers.calls.add(future)
        self._count(unfinished=1)
        future.add_done_callback(lambda _: self._count(unfinished=-1))
        self._start_threads()
        return future

    def abandon(self, call: "Future[Any]") -> None:
        """Cancel a call; if it runs already, have another thread for other calls until it ends."""
        if not call.cancel():
            self._count(abandoned=1)
            call.add_done_callback(lambda _: self._count(abandoned=-1))
            self._start_threads()

    def _count(self, unfinished: int = 0, abandoned: int = 0) -> None:
        with self._counting:
            self._unfinished += unfinished
            self.abandoned += abandoned
            self._max_workers = EXECUTOR_THREADS + self.abandoned

    def _start_threads(self) -> None:
        """Start the threads that unfinished calls need.

        Python 3.11 counts a thread as idle after each call, although it may take the next one, and then starts none.
        """
        with self._shutdown_lock:
            while len(self._threads) < min(self._unfinished, self._max_workers):
                while self._idle_semaphore.acquire(timeout=0):
                    pass
                self._adjust_thread_count()


class Leftovers:
    """Tasks and calls that one attempt has started, and that may outlive it.

    is_ended: False if `end` has left a task that did not stop, or too many calls.
    """

    def __init__(self, started: StartedAttempt, executor: Executor) -> None:
        self.started = started
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.calls: WeakSet[Future[Any]] = WeakSet()
        self.is_ended = True
        self._executor = executor

    async def end(self) -> None:
        """Cancel the tasks and wait for them, LEFTOVER_SECONDS at most; abandon the calls."""
        deadline = time.monotonic() + LEFTOVER_SECONDS
        cancelled: set[asyncio.Task[Any]] = set()
        while left := {task for task in self.tasks if not task.done()}:
            if time.monotonic() >= deadline:
                self.is_ended = False
                break
            for task in left - cancelled:
                task.cancel("the attempt has ended")
            cancelled |= left
            with suppress(asyncio.CancelledError):  # asked for by the handler before it returned
                await asyncio.wait(left, timeout=deadline - time.monotonic())
        for call in list(self.calls):
            self._executor.abandon(call)
        if self._executor.abandoned > MAX_ABANDONED:
            self.is_ended = False


current_leftovers: ContextVar[Leftovers | None] = ContextVar("leftovers", default=None)
"""The attempt to which the current task belongs."""
