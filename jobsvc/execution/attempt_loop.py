"""An event loop for attempts of async handlers, which is kept for further attempts.

Each attempt is a task with a context of its own. From the context the attempt of each task is known.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

from jobsvc.execution.leftovers import Executor, Leftovers, current_leftovers
from jobsvc.jobs import StartedAttempt

logger = logging.getLogger("jobsvc.worker")

SLOW_CALLBACK_SECONDS = 0.1
"""Default of asyncio, which logs slower callbacks in its debug mode."""

MAX_FAILURES = 20
FAILURE_SECONDS = 1.0
"""A loop is broken, e.g. because a handler closed its files, if it is interrupted more often with shorter pauses."""

T = TypeVar("T")

_loops: "WeakSet[AttemptLoop]" = WeakSet()


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose executor and generators a handler can't shut down, since they are those of others, too."""

    async def shutdown_default_executor(self, *_: Any, **__: Any) -> None:
        pass

    async def shutdown_asyncgens(self) -> None:
        pass


class _Task(asyncio.Task[T]):
    context: Context
    """What `get_context` returns, which Python 3.11 lacks."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task, unless another attempt asks for it, which may cancel all tasks of the loop."""
        caller, owner = current_leftovers.get(), self.context.get(current_leftovers)
        return (caller is None or owner is None or caller is owner) and super().cancel(msg)


class AttemptLoop:
    """An event loop that a task can't end. `run` and `run_forever` are for one thread.

    Not a loop of the policy, which may be of another kind: what handlers change in it is restored.
    """

    def __init__(self) -> None:
        self.loop = _Loop()
        self._is_debug = self.loop.get_debug()
        self._attempts: set[asyncio.Task[Any]] = set()  # the loop itself has only weak references
        self._executor = Executor()
        self._process, self._thread = os.getpid(), 0
        self._not_run: list[Any] = []
        self._failures, self._failed_at = 0, 0.0
        self.restore()
        _loops.add(self)

    def restore(self) -> None:
        """Restore what handlers may have set in the loop; to be called after each attempt."""
        self.loop.set_task_factory(self._make_task)
        self.loop.set_exception_handler(self._log_exception)
        self.loop.set_default_executor(self._executor)
        self.loop.set_debug(self._is_debug)
        self.loop.slow_callback_duration = SLOW_CALLBACK_SECONDS

    def track(self, started: StartedAttempt) -> Leftovers:
        """Track what the current task's context leaves on the loop from now on."""
        leftovers = Leftovers(started, self._executor)
        current_leftovers.set(leftovers)
        return leftovers

    def start(self, attempt: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a task in a context of its own. On the loop's thread."""
        task = self.loop.create_task(attempt, context=Context())
        self._attempts.add(task)
        task.add_done_callback(self._attempts.discard)
        return task

    def run(self, attempt: Coroutine[Any, Any, T]) -> T:
        """Run one attempt on this thread and return its result."""
        results: list[T] = []

        async def run() -> None:  # the handler may have cancelled this task, which then has no result of its own
            results.append(await attempt)

        task = self.start(run())
        task.add_done_callback(lambda _: self.loop.stop())
        while not task.done():
            self._run_until_stopped()
        return results[0]

    def run_forever(self) -> NoReturn:
        """Run the attempts that others start, on this thread."""
        while True:
            self._run_until_stopped()

    @property
    def current(self) -> StartedAttempt | None:
        """The attempt whose task runs now. From any thread: of a loop that is blocked, the one that blocks it."""
        task = asyncio.current_task(self.loop)
        leftovers = task.context.get(current_leftovers) if isinstance(task, _Task) else None
        return leftovers.started if leftovers else None

    def _run_until_stopped(self) -> None:
        self._thread = threading.get_ident()
        try:
            self.loop.run_forever()
        except BaseException as error:  # SystemExit and KeyboardInterrupt leave a task's step
            if os.getpid() == self._process:
                self._count_failure(error)
        if os.getpid() != self._process:  # forked by a handler, which let the loop go on
            os._exit(os.EX_SOFTWARE)
        if self.loop.is_closed() or self._failures > MAX_FAILURES:
            logger.error("event loop: closed or broken by a handler, the process ends")
            os._exit(os.EX_SOFTWARE)

    def _count_failure(self, error: BaseException) -> None:
        logger.warning("event loop: interrupted by %s, goes on", type(error).__name__)
        is_repeated = time.monotonic() < self._failed_at + FAILURE_SECONDS
        self._failures = self._failures + 1 if is_repeated else 1
        self._failed_at = time.monotonic()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, attempt: Any, context: Context | None = None, **options: Any
    ) -> "asyncio.Task[Any]":
        context = copy_context() if context is None else context
        task: _Task[Any] = _Task(attempt, loop=loop, context=context, **options)
        task.context = context
        if leftovers := context.get(current_leftovers):
            leftovers.tasks.add(task)
        return task

    def _log_exception(self, loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        """Log an exception that was not caught, as part of its own attempt's log."""
        task = details.get("task") or details.get("future")
        context = task.context if isinstance(task, _Task) else getattr(details.get("handle"), "_context", None)
        # A copy, since the context itself may be entered already.
        (context.copy() if context else Context()).run(loop.default_exception_handler, details)

    def _leave_to_parent(self) -> None:
        # Fork: run none of the other attempts' callbacks here, and keep them: a coroutine that is freed would clean up.
        if self._thread == threading.get_ident():
            ready: deque[Any] = self.loop._ready  # type: ignore[attr-defined]
            self._not_run += ready
            ready.clear()
            self.loop.stop()


def _after_fork() -> None:
    for one in list(_loops):
        one._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
