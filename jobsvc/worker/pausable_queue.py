"""RQ's queue with a pause that is stored in Postgres, so that it survives a loss of Redis."""

import contextlib
import time
from collections.abc import Iterable
from typing import Any

from rq import Queue
from rq.exceptions import DequeueTimeout
from rq.job import Job as RQJob

from jobsvc import jobs
from jobsvc.dispatch.rq_names import from_rq
from jobsvc.errors import StoreUnavailable

PAUSES_SECONDS = 0.5
"""Age up to which a worker's list of paused queues is used. `start` refuses jobs of queues paused since."""


class PausableQueue(Queue):
    """RQ's queue, skipped while it is paused: its jobs would be refused one by one."""

    _paused: set[str] = set()
    _known_until = 0.0

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, *args: Any, **kwargs: Any
    ) -> tuple[RQJob, Queue] | None:
        """Dequeue as RQ does from queues that are not paused; if one is, check the pauses every second."""
        queues = list(queues)
        served = cls.served(queues)
        # Pass a single queue twice: for one, RQ uses BLMOVE into an intermediate list, which our batches never empty.
        twice = served * 2 if len(served) == 1 else served
        if timeout is None or served == queues:
            return super().dequeue_any(twice, timeout, *args, **kwargs) if served else None
        if not served:
            time.sleep(1)
            raise DequeueTimeout(1, [])
        return super().dequeue_any(twice, 1, *args, **kwargs)

    @classmethod
    def served(cls, queues: Iterable[Queue]) -> list[Queue]:
        """Return the queues that are not paused, in the same order."""
        paused = cls._paused_queues()
        return [queue for queue in queues if from_rq(queue.name) not in paused]

    @classmethod
    def _paused_queues(cls) -> set[str]:
        if time.monotonic() >= cls._known_until:
            with contextlib.suppress(StoreUnavailable):
                cls._paused = jobs.paused_queues()
            cls._known_until = time.monotonic() + PAUSES_SECONDS
        return cls._paused
