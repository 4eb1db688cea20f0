"""RQ's queues as the source of a worker's jobs, with pauses that are stored in Postgres and survive a loss of Redis."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

from redis import RedisError
from rq import Queue, Worker
from rq.exceptions import DequeueTimeout, DeserializationError
from rq.job import Job as RQJob
from rq.suspension import is_suspended

from jobsvc import handlers, jobs
from jobsvc.config import settings
from jobsvc.dispatch import ownership, rq_redis
from jobsvc.dispatch.enqueue import RUN, SERIALIZER, claim_and_push, dispatch_following, handle_refused
from jobsvc.dispatch.rq_names import from_rq, ids_in, ours_of, to_rq
from jobsvc.errors import StoreUnavailable
from jobsvc.states import Outcome
from jobsvc.worker.rq_records import RQRecords, show_waiting, step_aside
from jobsvc.worker.running import FinishedAttempt

logger = logging.getLogger("jobsvc.worker")

MANY = 10
"""Queue length from which on a worker prefetches."""

PAUSES_SECONDS = 0.5
"""Age up to which a worker's list of paused queues is used. `start` refuses jobs of queues paused since."""

WITHHELD_SECONDS = 1.0
"""Pause between two checks that find nothing: the only cost for a worker of jobs that it can't run."""

MOST_WITHHELD = 100
"""Most jobs of one queue that a check counts and that are claimed at once."""


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
            with suppress(StoreUnavailable):
                cls._paused = jobs.paused_queues()
            cls._known_until = time.monotonic() + PAUSES_SECONDS
        return cls._paused


class RQQueue:
    """Takes jobs from the queues of one RQ worker, returns them, and shows them in RQ. Methods may raise RedisError."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._connection = worker, worker.connection
        self.records = RQRecords(worker)
        self.is_one_by_one = False
        """True if the worker may run no more jobs than RQ's main loop dequeues."""
        self.is_foreign_next = False
        """True if a foreign job is at the front of a queue: RQ's main loop must dequeue it."""
        self._withheld = WithheldJobs()
        self._is_namespace_taken = False  # by another database
        self._next_ownership_check = 0.0

    def served(self) -> list[str] | None:
        """Return the names of the worker's queues that are ours, paused ones included; None if there are none."""
        return ours_of(queue.name for queue in self._worker.queues) or None

    def may_take(self, is_late: bool = False) -> bool:
        """Return False if another database has our namespace; checked each JOBSVC_SWEEP_SECONDS or if `is_late`."""
        if is_late or time.monotonic() >= self._next_ownership_check:
            self._next_ownership_check = time.monotonic() + settings().JOBSVC_SWEEP_SECONDS
            try:
                ownership.confirm(rq_redis.connection())
                self._is_namespace_taken = False
            except ownership.NamespaceTaken as error:
                if not self._is_namespace_taken:
                    logger.error("worker: takes no job: %s", error)
                self._is_namespace_taken = True
            except RedisError:
                pass  # raised again by calls that need Redis
        return not self._is_namespace_taken

    def take(self, most: int, free: int, types: Collection[str]) -> list[str]:
        """Take up to `free` ids, or `most` if MANY wait in a queue, in queue order; none while suspended.

        Within a queue, jobs of these types that other workers refused come first, since they have been due longest.
        """
        if self.is_one_by_one or self.is_foreign_next or self._worker._stop_requested or is_suspended(self._connection):
            return []
        if not self.may_take():
            return []
        taken: list[str] = []
        free = min(max(free, 0), most)
        queues = PausableQueue.served(self._worker._ordered_queues)
        with self._connection.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.llen(queue.key)
            lengths: list[int] = pipeline.execute()
        withheld = self._withheld.count(ours_of(queue.name for queue in queues), types)
        for queue, length in zip(queues, lengths, strict=True):
            name = from_rq(queue.name) or ""
            room = (most if length + withheld.get(name, 0) >= MANY else free) - len(taken)
            if withheld and room > 0:
                claimed = self._withheld.claim(name, room, types)
                taken += claimed
                room -= len(claimed)
            if length and room > 0:
                try:
                    popped = cast(list[bytes] | None, self._connection.lpop(queue.key, room))
                except RedisError:
                    if not taken:
                        raise
                    break  # jobs taken before must still be started
                taken += [job_id.decode() for job_id in popped or []]
        return taken

    def take_withheld(self, most: int) -> list[str]:
        """Claim up to `most` jobs that other workers refused, for an idle worker."""
        if not self.may_take():
            return []
        names = ours_of(queue.name for queue in PausableQueue.served(self._worker._ordered_queues))
        types = handlers.types()
        withheld = self._withheld.count(names, types)
        if not withheld or is_suspended(self._connection):
            return []
        taken: list[str] = []
        for name in names:
            taken += self._withheld.claim(name, most - len(taken), types)
        return taken

    def give_back(self, job_ids: Iterable[str]) -> None:
        """Return these ids to the front of their queues."""
        for job in self._fetch(job_ids):
            self._to_the_front(job)

    def refused(self, job_ids: Iterable[str]) -> None:
        """Handle ids that Postgres refused to start: leave foreign jobs to RQ, correct what RQ shows of ours."""
        job_ids = set(job_ids)
        if not self.may_take(is_late=True):
            self.give_back(job_ids)
            return
        awaiting = {str(job_id) for job_id in handle_refused(ids_in(job_ids), self._connection)}
        show_waiting(self._connection, awaiting)
        ours: list[str] = []
        for job in self._fetch(job_ids - awaiting):
            if is_ours(job):
                step_aside(self._worker, job, None)
                ours.append(job.id)
            else:
                self.is_foreign_next = True
                self._to_the_front(job)
        # Race: RQ's scheduler, on a host whose clock is ahead, queued a job early. If it came due between the refusal
        # and `step_aside`, the relay has claimed it but did not queue it, since it was shown as queued.
        with suppress(StoreUnavailable):
            jobs.release_due(ids_in(ours))

    def _fetch(self, job_ids: Iterable[str]) -> Iterator[RQJob]:
        for job in filter(None, RQJob.fetch_many(list(job_ids), self._connection, SERIALIZER)):
            if is_ours(job) and from_rq(job.origin) is None:  # dispatched by version 0.1, whose names had no namespace
                job.origin = to_rq(job.origin)
            yield job

    def _to_the_front(self, job: RQJob) -> None:
        Queue(job.origin, self._connection).push_job_id(job.id, at_front=True)

    def show_finished(self, finished: list[FinishedAttempt]) -> None:
        """Show results in RQ, and dispatch jobs that may start now; nothing if another database has our namespace."""
        if self._is_namespace_taken:
            self.records.forget(finished)
            return
        self.records.show_finished(finished)
        dispatch_following([one.transition for one in finished if one.transition], self._connection)
        if returned := [one for one in finished if one.result.outcome == Outcome.HANDED_BACK]:
            claim_and_push(lambda: jobs.claim_due(len(returned)), self._connection)


class WithheldJobs:
    """The withheld jobs that one worker may start, as of its last query of Postgres."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._next_check = 0.0

    def count(self, queues: Sequence[str], types: Collection[str]) -> dict[str, int]:
        """Return how many wait in each queue, up to MOST_WITHHELD; queries Postgres at most once in WITHHELD_SECONDS.

        Empty while Postgres is unavailable.
        """
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + WITHHELD_SECONDS
            self._waiting = {}
            with suppress(StoreUnavailable):
                self._waiting = jobs.count_awaiting(queues, types, MOST_WITHHELD)
        return self._waiting

    def claim(self, queue: str, most: int, types: Collection[str]) -> list[str]:
        """Claim up to `most` of them, the longest due first; the caller must start them next."""
        wanted = min(most, self._waiting.get(queue, 0))
        if wanted <= 0:
            return []
        claimed: list[str] = []
        with suppress(StoreUnavailable):
            claimed = [str(job_id) for job_id in jobs.claim_awaiting([queue], types, wanted)]
        self._waiting[queue] -= len(claimed)
        if len(claimed) < wanted:  # other workers were quicker
            del self._waiting[queue]
        elif not self._waiting[queue]:  # there may be more
            self._next_check = 0.0
        return claimed


def is_ours(job: RQJob) -> bool:
    """Return True if this is one of our jobs, not a foreign one in the same RQ."""
    try:
        return job.func_name == RUN
    except DeserializationError:  # RQ shows it as failed
        return False
