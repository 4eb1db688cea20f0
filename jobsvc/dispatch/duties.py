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
from jobsvc.dispatch.missing import claim_missing
from jobsvc.dispatch.offers import Offers
from jobsvc.dispatch.old_names import OldNames
from jobsvc.dispatch.releases import ReleaseDuty
from jobsvc.dispatch.withheld_keys import WithheldKeys
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
    RATES = "rate limits"
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
            Duty.RATES: self.dispatch_limited,
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
        self._withheld = WithheldKeys(BATCH)
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
                due = jobs.claim_due_jobs(BATCH)
                self.dispatch(self._not_queued(due.free))
                self.dispatch(self._not_queued(self._withheld.claim(due.concurrency_keys, due.rate_keys)))
                wait = 0.0 if due.has_more else jobs.seconds_to_next()
                if due.rate_keys:
                    self.request(Duty.RATES, self._withheld.rates.seconds_to_next())
        if not self._redis.is_available:
            wait = self._redis.seconds_to_retry
        return self._until(wait)

    def dispatch_limited(self) -> float:
        """Dispatch jobs of the rate keys that may have a free slot now; the next run is at the next free slot."""
        keys = self._withheld.rates.due(BATCH)
        if keys and self._is_redis_usable():
            with self._postgres:
                self.dispatch(self._withheld.claim((), keys))
        is_outage = not (self._redis.is_available and self._postgres.is_available)
        return self._interval if is_outage else self._withheld.rates.seconds_to_next()

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
            if self._redis_answers():
                with self._redis.on("move"):
                    self._old_names.step()
                queues = settings().JOBSVC_QUEUES
                with self._redis.on("read"):
                    counts += [self.dispatch(claim_missing(name, BATCH)) for name in queues]
                for withheld in (*[jobs.claim_resumed(name, BATCH) for name in queues], self._withheld.step()):
                    self.dispatch(self._not_queued(withheld))
                    if self._redis.is_available:  # else a later sweep finds them again
                        counts.append(len(withheld))
                self.request(Duty.RATES, self._withheld.rates.seconds_to_next())
                with self._redis.on("offer"):
                    self.dispatch(self._offers.claim())
            jobs.ensure_registered()
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
        """Merge and delete old rows of the counters over time, and delete old starts under rate limits."""
        with self._postgres:
            jobs.compact_history()
            return 0.0 if self._withheld.prune_starts() else PRUNE_SECONDS
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

    def _not_queued(self, claimed: Sequence[Dispatch]) -> Sequence[Dispatch]:
        """Filter out jobs that RQ has already queued by itself (its scheduler, or an immediate retry)."""
        if claimed:  # else nothing is read, which must not count as a success of the task
            with self._redis.on("read"):
                return not_queued(claimed, rq_redis.connection())
        return claimed

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
