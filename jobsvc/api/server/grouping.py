"""Stores plain jobs in groups: those posted while one group is being stored form the next one."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from jobsvc.jobs import NewJob, Submitted

logger = logging.getLogger("jobsvc.api")

MAX_GROUP = 500
"""Maximum number of jobs per statement. This many take about 20 ms, during which all of them wait."""

Store = Callable[[Sequence[NewJob]], Sequence[Submitted | Exception]]
_Member = tuple[NewJob, "asyncio.Future[Submitted]"]


class Groups:
    """Stores jobs with `store` in a thread, one group at a time. Not thread-safe: use it on the event loop only.

    A job is stored at once if no group is being stored. One thread call per group costs less than one per job.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._gathered: list[_Member] = []
        self._is_storing = False
        self._groups: SimpleQueue[list[_Member]] = SimpleQueue()
        threading.Thread(target=self._run, name="groups", daemon=True).start()

    def submit(self, job: NewJob) -> "asyncio.Future[Submitted]":
        """Store this job; the future gets the outcome or the exception."""
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
