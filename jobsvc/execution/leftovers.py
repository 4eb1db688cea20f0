"""What an attempt of an async handler may leave on its event loop: tasks, and calls in threads."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
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

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Submit a call as ThreadPoolExecutor does; it belongs to the attempt of the current context."""
        future = super().submit(call, *args, **kwargs)
        if leftovers := current_leftovers.get():
            leftovers.calls.add(future)
        return future

    def abandon(self, call: "Future[Any]") -> None:
        """Cancel a call; if it runs already, have another thread for other calls until it ends."""
        if not call.cancel():
            self._add_threads(1)
            call.add_done_callback(lambda _: self._add_threads(-1))

    def _add_threads(self, number: int) -> None:
        with self._shutdown_lock:
            self.abandoned += number
            self._max_workers = EXECUTOR_THREADS + self.abandoned
            if number > 0 and not self._work_queue.empty():
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
