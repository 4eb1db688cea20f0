"""Limit of the jobs that need a thread or a process."""

import sys
from collections.abc import Collection, Mapping

from jobsvc import handlers
from jobsvc.worker.running import RunningJob

MAX_THREADS = 128
"""Most sync handlers that run at once; others wait without a thread."""


class ThreadLimit:
    """Decides which jobs a worker may start.

    A job that would have to wait for a thread is not started: another worker may have one free.
    """

    def __init__(self, concurrency: int, running: Mapping[int, RunningJob]) -> None:
        self._concurrency, self._running = concurrency, running

    def types(self) -> Collection[str]:
        """Return the job types that may start now; of async handlers only, if no thread is free."""
        return handlers.types() if self._free_threads else handlers.loop_types()

    def room(self, room: int) -> int:
        """Return how many of `room` jobs of the types above to take: their types are known only at their start."""
        return min(room, self._free_threads or room)

    @property
    def may_fork(self) -> bool:
        """True if an isolated job may have a process."""
        return sum(job.child.is_for_one for job in self._running.values()) < min(self._concurrency, MAX_THREADS)

    @property
    def _free_threads(self) -> int:
        if self._concurrency <= MAX_THREADS:  # a job without a slot has no thread, either
            return sys.maxsize
        others = sum(job.handler is None or not job.handler.shares_loop for job in self._running.values())
        return max(MAX_THREADS - others, 0)
