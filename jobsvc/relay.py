"""The relay: hands jobs to RQ, at once when it is woken, and by sweeping for what was left behind.

Any number of relays may run, in API processes and beside workers; each job is claimed by one.
Postgres says what has to be delivered, so that nothing depends on a relay's memory.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypeVar
from uuid import UUID

from redis import RedisError
from rq import Queue, Retry

from jobsvc import deliveries, jobs, rqsettings
from jobsvc.config import settings
from jobsvc.deliveries import Delivery
from jobsvc.errors import StoreUnavailable
from jobsvc.watch import GRACE_SECONDS

logger = logging.getLogger("jobsvc.relay")

BATCH = 1000
"""The most that one round of one duty takes on."""

SHORTEST_PAUSE = 0.02
"""Seconds between two looks for due jobs, so that many due times close together share one."""

T = TypeVar("T")


class Relay:
    """One process' relay. `wake` and `stop` may be called from any thread; the rest belongs to the relay's own."""

    def __init__(self) -> None:
        self._inbox: deque[Delivery] = deque()
        self._bell = threading.Event()
        self._stopped = False
        self._redis = _Server("Redis")
        self._postgres = _Server("Postgres")

    def wake(self, news: Iterable[Delivery]) -> None:
        """Deliver these jobs, which are stored and, if due, count as delivered. Returns at once."""
        self._inbox.extend(news)
        self._bell.set()

    def start(self) -> "Relay":
        """Run in a daemon thread, which ends with the process."""
        threading.Thread(target=self.run, name="relay", daemon=True).start()
        return self

    def stop(self) -> None:
        """End `run` after what it is doing now."""
        self._stopped = True
        self._bell.set()

    def run(self) -> None:
        """Deliver and sweep until stopped.

        The first sweep comes after an interval, so that a process which ends at once never sweeps.
        """
        interval = settings().JOBSVC_SWEEP_SECONDS
        next_sweep = next_due = time.monotonic() + interval
        while not self._stopped:
            self._bell.wait(max(min(next_sweep, next_due) - time.monotonic(), 0))
            self._bell.clear()
            try:
                next_due = min(next_due, time.monotonic() + self._deliver_inbox())
                if time.monotonic() >= min(next_due, next_sweep):
                    next_due = time.monotonic() + max(self.deliver_due(), SHORTEST_PAUSE)
                if time.monotonic() >= next_sweep:
                    next_sweep = time.monotonic() + (0 if self.sweep() else interval)
            except Exception:
                # Nothing here is worth losing the relay over: what was missed is found again.
                logger.exception("the relay stumbled, and goes on in %g s", interval)
                next_sweep = next_due = time.monotonic() + interval

    def _deliver_inbox(self) -> float:
        """Deliver what came by `wake`; returns the seconds until the first of it that waits for its time."""
        soonest = math.inf
        while self._inbox:
            batch = [self._inbox.popleft() for _ in range(min(len(self._inbox), BATCH))]
            self._deliver(batch)
            soonest = min([soonest, *(_wait(delivery) for delivery in batch if _wait(delivery) > 0)])
        return soonest

    def deliver_due(self) -> float:
        """Deliver what is due and not in RQ; returns the seconds until more is."""
        if not self._redis_is_there():
            return settings().JOBSVC_SWEEP_SECONDS
        if self._deliver(self._ask(lambda: deliveries.claim_due(BATCH), [])) == BATCH:
            return 0.0
        wait = self._ask(deliveries.seconds_to_next, None)
        return math.inf if wait is None else wait

    def sweep(self) -> bool:
        """Find what was left behind: expired, lost by its worker, lost by Redis; whether there may be more at once."""
        counts = [self._ask(lambda: jobs.expire(BATCH), 0), self._ask(lambda: jobs.recover(BATCH), 0)]
        if self._redis_is_there():
            for name in settings().JOBSVC_QUEUES:
                counts.append(self._deliver(self._missing(name)))
        return BATCH in counts

    def _missing(self, name: str) -> list[Delivery]:
        try:
            ids = rqsettings.queue(name).get_job_ids(0, 1)
            head = UUID(ids[0]) if ids else None
        except RedisError as error:
            self._redis.failed(error)
            return []
        except ValueError:
            return []  # somebody else's job; ours show when it has gone
        grace = settings().JOBSVC_LEASE_SECONDS
        return self._ask(lambda: deliveries.claim_missing(name, head, grace, BATCH), [])

    def _deliver(self, batch: Sequence[Delivery]) -> int:
        """Push these jobs to RQ, or take their claims back for a later sweep; returns how many were pushed."""
        if not batch:
            return 0
        if self._redis.is_worth_a_try():
            try:
                _push(batch)
                self._redis.answered()
                return len(batch)
            except RedisError as error:
                self._redis.failed(error)
        self._ask(lambda: deliveries.release(delivery.job_id for delivery in batch), None)
        return 0

    def _redis_is_there(self) -> bool:
        try:
            rqsettings.connection().ping()
        except RedisError as error:
            self._redis.failed(error)
            return False
        self._redis.answered()
        return True

    def _ask(self, duty: Callable[[], T], otherwise: T) -> T:
        """Postgres' answer, or `otherwise` while it is away."""
        try:
            answer = duty()
        except StoreUnavailable as error:
            self._postgres.failed(error)
            return otherwise
        self._postgres.answered()
        return answer


class _Server:
    """Whether a server answers: says so once when that changes, and when it is time to try again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_up = True
        self._retry_at = 0.0

    def is_worth_a_try(self) -> bool:
        return self._is_up or time.monotonic() >= self._retry_at

    def answered(self) -> None:
        if not self._is_up:
            logger.info("%s is back; what waits is delivered now", self._name)
        self._is_up = True

    def failed(self, error: Exception) -> None:
        if self._is_up:
            logger.warning("%s can't be reached; jobs wait until it is back: %s", self._name, error)
        self._is_up = False
        self._retry_at = time.monotonic() + settings().JOBSVC_SWEEP_SECONDS


def _wait(delivery: Delivery) -> float:
    return delivery.due_at.timestamp() - time.time()


def _push(batch: Sequence[Delivery]) -> None:
    """Queue those of these jobs that are due, schedule the others, in one round trip."""
    with rqsettings.connection().pipeline() as pipeline:
        for name, group in groupby(sorted(batch, key=lambda d: d.queue), key=lambda d: d.queue):
            queue = rqsettings.queue(name)
            due = []
            for delivery in group:
                if _wait(delivery) > 0:
                    # RQ keeps whole seconds and cuts the rest off; rounded up, it won't ring early.
                    whole_second = datetime.fromtimestamp(math.ceil(delivery.due_at.timestamp()), UTC)
                    queue.schedule_job(queue.create_job(**_rq_job(delivery)), whole_second, pipeline=pipeline)
                else:
                    due.append(Queue.prepare_data(**_rq_job(delivery)))
            if due:
                pipeline.zrem(queue.scheduled_job_registry.key, *(job.job_id for job in due))
                queue.enqueue_many(due, pipeline=pipeline)
        pipeline.execute()


def _rq_job(delivery: Delivery) -> dict[str, Any]:
    """A delivery in RQ's words."""
    retries = [math.ceil(interval) for interval in delivery.retry_intervals]  # RQ counts whole seconds
    return {
        "func": rqsettings.RUN,
        "args": (str(delivery.job_id),),
        "job_id": str(delivery.job_id),
        "description": delivery.type,
        # The attempt keeps its own time; RQ's is for a process that can't even do that.
        "timeout": math.ceil(delivery.timeout + GRACE_SECONDS),
        # One value for each retry: RQ repeats the first of a list that is too short.
        "retry": Retry(max=len(retries), interval=retries) if retries else None,
        "result_ttl": rqsettings.RESULT_TTL,
        "failure_ttl": rqsettings.FAILURE_TTL,
    }
