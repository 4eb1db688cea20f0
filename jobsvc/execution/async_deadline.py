"""Deadline of one attempt of an async handler: when it passes, the attempt's task is cancelled."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context

from jobsvc.execution.deadline import Deadline
from jobsvc.execution.thread_deadline import limited_in_thread


class AsyncDeadline(Deadline):
    """Deadline of an attempt on an event loop: the task that calls `start` is cancelled, once.

    `start`, `pause` and `close` are for that task alone, and `fire` is for its loop.
    """

    _task: "asyncio.Task[object] | None" = None
    _loop: asyncio.AbstractEventLoop | None = None
    _timer: asyncio.TimerHandle | None = None

    def raise_if_late(self) -> None:
        """Raise the reason if it was due while the handler blocked the loop. To be called when the handler is over."""
        if not self.has_fired and self.fires_at <= time.monotonic():
            raise self._take_reason()

    def limited(self, seconds: float, work: Callable[[], None]) -> None:
        """As in Deadline, but in a thread of its own, for which the loop waits."""
        limited_in_thread(self, seconds, work)

    def fire(self) -> None:
        """Cancel the task if the reason is due."""
        if self.has_fired or self.fires_at == math.inf:
            return
        if time.monotonic() < self.fires_at:
            self._schedule()
        elif self._task:
            self._task.cancel(str(self._take_reason()))

    def _begin(self) -> None:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        self._schedule()

    def _arm(self) -> None:
        if self._loop:
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._loop and self.fires_at < math.inf:
            # In an empty context: a cancelled timer stays until its time, and would keep what its context refers to.
            self._timer = self._loop.call_at(self.fires_at, self.fire, context=Context())

    def _disarm(self) -> None:
        self.is_over = True
        if self._timer:
            self._timer.cancel()
