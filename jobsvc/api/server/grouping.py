"""Plain jobs, stored in groups: those that are posted while one group is stored make the next one."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from jobsvc.jobs import NewJob, Submitted

logger = logging.getLogger("jobsvc.api")

MAX_GROUP = 500
"""Jobs stored by one statement. So many take about 20 ms, for which all of them wait."""

Store = Callable[[Sequence[NewJob]], Sequence[Submitted | Exception]]
_Member = tuple[NewJob, "asyncio.Future[Submitted]"]


class Groups:
    """Jobs that wait to be stored by `store`, one group at a time, in a thread. Of the event loop alone.

    A job that comes alone waits for no company. One call of a thread for a group costs less than one for each job.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._gathered: list[_Member] = []
        self._is_storing = False
        self._groups: SimpleQueue[list[_Member]] = SimpleQueue()
        threading.Thread(target=self._run, name="groups", daemon=True).start()

    def submit(self, job: NewJob) -> "asyncio.Future[Submitted]":
        """Store this job; the future has what became of it, or the error."""
        future = self._loop.create_future()
        self._gathered.append((job, future))
        if not self._is_storing:
            self._next()
        return future

    def _next(self) -> None:
        self._is_storing = bool(self._gathered)
        if self._is_storing:
            group, self._gathered = self._gathered[:MAX_GROUP], self._gathered[MAX_GROUP:]
            self._groups.put(group)

    def _run(self) -> None:
        while True:
            group = self._groups.get()
            try:
                outcomes = self._store([job for job, _ in group])
            except Exception as error:
                logger.exception("groups: storing %d jobs failed", len(group))
                outcomes = [error] * len(group)
            self._loop.call_soon_threadsafe(self._end, group, outcomes)

    def _end(self, group: Sequence[_Member], outcomes: Sequence[Any]) -> None:
        self._next()
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.cancelled():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
