"""The relay's duties: what it does for jobs, in batches. `relay` decides when."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from uuid import UUID

from redis import RedisError

from jobsvc import jobs, tracing
from jobsvc.config import settings
from jobsvc.dispatch import rq_cleanup, rq_redis
from jobsvc.dispatch.enqueue import not_queued, push
from jobsvc.dispatch.offers import Offers
from jobsvc.dispatch.old_names import OldNames
from jobsvc.dispatch.releases import ReleaseDuty
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import Dispatch
from jobsvc.servers.outages import PROBE, OutageTracker

logger = logging.getLogger("jobsvc.relay")

BATCH = 1000
"""Maximum number of jobs, keys or rows that a duty processes in one run."""

MOST_TO_WITHDRAW = 100 * BATCH
"""Maximum number of ended jobs buffered for removal from RQ; workers skip those that stay there."""

SHORTEST_PAUSE = 0.02
"""Minimum seconds between two checks for due jobs, so that due times close together share one check."""

GATHER_SECONDS = 0.005
"""Minimum seconds between two dispatches of new jobs. The first job is sent at once, the following ones together."""

PRUNE_SECONDS = 60.0
"""Seconds between two checks for jobs, or old counts, to delete from Postgres."""


class Duty(Enum):
    """A duty of the relay. Those that are due together run in this order."""

    NEW = "new jobs"
    ENDED = "ended jobs"
    RELEASE = "blocked jobs"
    DUE = "due jobs"
    SWEEP = "sweep"
    PRUNE = "prune"
    HISTORY = "history"
    TRIM = "trim"
    SCHEDULES = "schedules"


class Duties:
    """The duties of one relay. Each runs for at most BATCH jobs, and returns the seconds until its next run.

    RQ has a scheduler, too, for retries and delayed jobs. Its schedule is a display, and a fallback if no relay runs;
    it counts whole seconds. The relay is the clock, and `not_queued` finds the jobs that RQ has queued first.
    """

    def __init__(self) -> None:
        self.new: deque[Dispatch] = deque()
        self.ended: deque[UUID] = deque(maxlen=MOST_TO_WITHDRAW)
        self.requests: deque[tuple[Duty, float]] = deque()  # with the monotonic time of the run
        self._postgres = OutageTracker("Postgres", StoreUnavailable)
        self.table: dict[Duty, Callable[[], float]] = {
            Duty.NEW: self.dispatch_new,
            Duty.ENDED: self.withdraw_ended,
            Duty.RELEASE: ReleaseDuty(self._postgres, on_release=lambda: self.request(Duty.DUE)).run,
            Duty.DUE: self.dispatch_due,
            Duty.SWEEP: self.sweep,
            Duty.PRUNE: self.prune,
            Duty.HISTORY: self.compact_history,
            Duty.TRIM: self.trim,
            Duty.SCHEDULES: self.tick,
        }
        self._interval = settings().JOBSVC_SWEEP_SECONDS
        self._redis = OutageTracker("Redis", RedisError, logger, met_by_probe=rq_redis.is_met_by_probe)
        self._is_probed = False
        self._offers = Offers()
        self._old_names = OldNames()
        self._last_key = ""
        self._last_pruned = jobs.LOWEST
        self._next_dispatch = 0.0

    def request(self, duty: Duty, seconds: float = 0.0) -> None:
        """Have the duty run after `seconds` at the latest. May be called from any thread."""
        self.requests.append((duty, time.monotonic() + seconds))

    def dispatch_new(self) -> float:
        """Dispatch the jobs in `new`; those that wait, or must still be claimed, are left to `dispatch_due`."""
        if not self.new:
            return math.inf
        time.sleep(max(self._next_dispatch - time.monotonic(), 0))
        self._next_dispatch = time.monotonic() + GATHER_SECONDS
        batch = [self.new.popleft() for _ in range(min(len(self.new), BATCH))]
        self.dispatch([one for one in batch if one.is_claimed or one.wait > 0])
        if waits := [max(one.wait, 0) for one in batch if one.wait > 0 or not one.is_claimed]:
            self.request(Duty.DUE, min(waits))
        return 0.0 if self.new else math.inf

    def withdraw_ended(self) -> float:
        """Remove the jobs in `ended` from RQ; those that it is still running are tried again after an interval."""
        batch = [self.ended.popleft() for _ in range(min(len(self.ended), BATCH))]
        has_more = bool(self.ended)
        if batch and self._is_redis_usable():
            with self._postgres, self._redis.on("withdraw"):
                self.ended.extend(rq_cleanup.withdraw(batch))
        return 0.0 if has_more else self._interval

    def dispatch_due(self) -> float:
        """Dispatch due jobs that are not in RQ; the next run is when the next is due, or Redis is retried."""
        wait = None
        if self._redis_answers():
            with self._postgres:
                claimed = jobs.claim_due(BATCH)
                self.dispatch(self._not_queued(claimed))
                wait = 0.0 if len(claimed) == BATCH else jobs.seconds_to_next()
        if not self._redis.is_available:
            wait = self._redis.seconds_to_retry
        return self._until(wait)

    def sweep(self) -> float:
        """Expire jobs, recover lapsed leases, and dispatch jobs that RQ has lost or that were withheld."""
        counts: list[int] = []
        with self._postgres:
            counts = [jobs.expire(BATCH), self._recover_lapsed()]
            if any(counts):
                self.request(Duty.RELEASE)
                self.request(Duty.DUE)  # for their webhook deliveries, dependents, and the retries of lost attempts
            counts.append(jobs.delete_old_keys(BATCH))
            jobs.fold_counters()
            jobs.ensure_registered()
            if self._redis_answers():
                with self._redis.on("move"):
                    self._old_names.step()
                queues = settings().JOBSVC_QUEUES
                counts += [self.dispatch(self._missing(name)) for name in queues]
                for withheld in (*[jobs.claim_resumed(name, BATCH) for name in queues], self._next_of_keys()):
                    self.dispatch(self._not_queued(withheld))
                    if self._redis.is_available:  # else a later sweep finds them again
                        counts.append(len(withheld))
                with self._redis.on("offer"):
                    self.dispatch(self._offers.claim())
        return 0.0 if BATCH in counts else self._interval

    def prune(self) -> float:
        """Delete jobs older than JOBSVC_RETENTION_DAYS from Postgres and RQ.

        Each run continues where the last one stopped. So jobs that wait for a year cost one short scan a minute,
        however many there are. Any number of relays may prune at once.
        """
        if not (days := settings().JOBSVC_RETENTION_DAYS):
            return math.inf
        with self._postgres:
            pruned = jobs.prune(days * 86400, BATCH, self._last_pruned)
            self._last_pruned = pruned.reached
            if pruned.job_ids and self._is_redis_usable():
                with self._redis.on("prune"):
                    rq_cleanup.remove_pruned(pruned.job_ids)
            return 0.0 if pruned.job_ids and pruned.reached != jobs.LOWEST else PRUNE_SECONDS
        return self._interval

    def compact_history(self) -> float:
        """Merge and delete old rows of the counters over time."""
        with self._postgres:
            jobs.compact_history()
        return PRUNE_SECONDS

    def trim(self) -> float:
        """Remove all but the newest ended jobs from RQ."""
        if self._is_redis_usable():
            with self._redis.on("trim"):
                return 0.0 if BATCH in rq_cleanup.trim(BATCH) else self._interval
        return self._interval

    def tick(self) -> float:
        """Submit the jobs of due schedules; the next run is at the next tick."""
        wait = None
        with self._postgres:
            if submitted := jobs.schedules.tick(BATCH):
                self.new.extend(submitted)
                self.request(Duty.NEW)
            wait = jobs.schedules.seconds_to_next()
        return self._until(wait)

    def dispatch(self, batch: Sequence[Dispatch]) -> int:
        """Enqueue these jobs in RQ, or release their claims for a later sweep; returns how many were enqueued."""
        if not batch:
            return 0
        if self._is_redis_usable():
            with self._redis.on("push"), tracing.span("deliver", "CLIENT", links=(one.traceparent for one in batch)):
                push(batch, rq_redis.connection())
                return len(batch)
        with self._postgres:
            jobs.release(one.job_id for one in batch)
        return 0

    def _until(self, seconds: float | None) -> float:
        """Limit the pause: another process may have changed what it depends on, which only a new check shows."""
        return min(self._interval if seconds is None else max(seconds, SHORTEST_PAUSE), self._interval)

    def _recover_lapsed(self) -> int:
        """Recover lapsed leases, but not within a lease's time after an outage, when no lease could be renewed."""
        lease = settings().JOBSVC_LEASE_SECONDS
        return jobs.recover_lapsed(BATCH, lease) if self._postgres.seconds_up >= lease else 0

    def _next_of_keys(self) -> Sequence[Dispatch]:
        """Claim withheld jobs of concurrency keys that have a free slot; up to BATCH keys per call, round robin."""
        keys = jobs.withheld_keys(self._last_key, BATCH)
        self._last_key = keys[-1] if len(keys) == BATCH else ""
        return jobs.claim_next(keys, BATCH)

    def _not_queued(self, claimed: Sequence[Dispatch]) -> Sequence[Dispatch]:
        """Filter out jobs that RQ has already queued by itself (its scheduler, or an immediate retry)."""
        if claimed:  # else nothing is read, which must not count as a success of the task
            with self._redis.on("read"):
                return not_queued(claimed, rq_redis.connection())
        return claimed

    def _missing(self, name: str) -> list[Dispatch]:
        with self._redis.on("read"):
            ids = rq_redis.queue(name).get_job_ids(0, 1)
            try:
                head = UUID(ids[0]) if ids else None
            except ValueError:
                return []  # another application's job; check ours when that one has left
            # RQ's scheduler may have queued a job two sweeps before we claimed it.
            grace = settings().JOBSVC_LEASE_SECONDS + 2 * settings().JOBSVC_SWEEP_SECONDS
            return jobs.claim_missing(name, head, grace, BATCH)
        return []

    def _is_redis_usable(self) -> bool:
        """Return True if Redis is available as of the last call; probes it before its first use."""
        if self._redis.is_available and self._is_probed:
            return True
        return self._redis_answers()

    def _redis_answers(self) -> bool:
        """Probe Redis; returns True if it can be used. Doesn't probe during the pause after a failure."""
        if not self._redis.is_worth_a_try():
            return False
        self._is_probed = False
        with self._redis.on(PROBE):
            rq_redis.probe()
            self._is_probed = True
        return self._is_probed
