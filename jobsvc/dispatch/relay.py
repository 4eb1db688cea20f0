"""The relay: dispatches jobs to RQ, at once when woken up, and in sweeps that find missed jobs.

Any number of relays may run, in API processes and beside workers; each job is claimed by one.
Postgres defines which jobs must be dispatched, so that nothing depends on a relay's memory.
"""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from uuid import UUID

from redis import RedisError

from jobsvc import jobs, tracing
from jobsvc.config import settings
from jobsvc.dispatch import rq_cleanup, rq_redis, withdrawing
from jobsvc.dispatch.enqueue import not_queued, push
from jobsvc.dispatch.offers import Offers
from jobsvc.dispatch.old_names import OldNames
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import Dispatch
from jobsvc.servers.outages import PROBE, OutageTracker

logger = logging.getLogger("jobsvc.relay")

BATCH = 1000
"""Maximum number of jobs, keys or rows that one call of one duty processes."""

MOST_TO_WITHDRAW = 100 * BATCH
"""Maximum number of ended jobs buffered for removal from RQ; workers skip those that stay there."""

SHORTEST_PAUSE = 0.02
"""Minimum seconds between two checks for due jobs, so that due times close together share one check."""

GATHER_SECONDS = 0.005
"""Minimum seconds between two dispatches of new jobs. The first job is sent at once, the following ones together."""


class Relay:
    """The relay of one process. The methods that return at once may be called from any thread."""

    def __init__(self) -> None:
        self._inbox: deque[Dispatch] = deque()
        self._ended: deque[UUID] = deque(maxlen=MOST_TO_WITHDRAW)
        self._wakeup = threading.Event()
        self._shall_look = False
        self._redis = OutageTracker("Redis", RedisError, logger, met_by_probe=rq_redis.is_met_by_probe)
        self._is_probed = False
        self._postgres = OutageTracker("Postgres", StoreUnavailable)
        self._retention = rq_cleanup.Retention()
        self._rescheduled = False
        self._sweep_now = False
        self._last_key = ""
        self._offers = Offers()
        self._old_names = OldNames()
        self._is_stopped = False
        self._next_push = 0.0

    def wake(self, news: Iterable[Dispatch]) -> None:
        """Dispatch these committed jobs. Returns at once, even while Redis is unavailable."""
        self._inbox.extend(news)
        self._wakeup.set()

    def withdraw(self, job_ids: Iterable[UUID]) -> None:
        """Remove these ended or deleted jobs from RQ, in the background and best effort. Returns at once."""
        self._ended.extend(job_ids)
        self._wakeup.set()

    def reschedule(self) -> None:
        """Check the schedules after a committed change. Returns at once."""
        self._rescheduled = True
        self._wakeup.set()

    def release_withheld(self) -> None:
        """Trigger a sweep, for withheld jobs that may start now. Returns at once."""
        self._sweep_now = True
        self._wakeup.set()

    def look(self) -> None:
        """Trigger a check for due jobs that were not dispatched. Returns at once."""
        self._shall_look = True
        self._wakeup.set()

    def start(self) -> "Relay":
        """Run in a daemon thread. A process forked from this one starts a relay thread of its own."""
        os.register_at_fork(after_in_child=self._start_afresh)
        self._start_afresh()
        return self

    def _start_afresh(self) -> None:
        self.__init__()  # type: ignore[misc]  # fork: a lock may have been held
        self._thread = threading.Thread(target=self.run, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it. CLI commands call this: they must not sweep with their shell's settings."""
        self._is_stopped = True
        self._wakeup.set()
        self._thread.join()

    def settle(self) -> None:
        """After `stop`: process what `wake` and `withdraw` have queued, up to BATCH jobs to withdraw."""
        self._empty_inbox()
        self._withdraw_some()

    def run(self) -> None:
        """Dispatch and sweep until stopped. The first sweep is delayed: a process that ends soon never sweeps."""
        interval = settings().JOBSVC_SWEEP_SECONDS
        next_sweep = next_due = next_tick = next_trim = time.monotonic() + interval
        while not self._is_stopped:
            self._wakeup.wait(max(min(next_sweep, next_due, next_tick, next_trim) - time.monotonic(), 0))
            self._wakeup.clear()
            try:
                next_due = min(next_due, time.monotonic() + self._empty_inbox())
                self._withdraw_some()
                if self._shall_look or time.monotonic() >= min(next_due, next_sweep):
                    self._shall_look = False
                    next_due = time.monotonic() + max(self.dispatch_due(), SHORTEST_PAUSE)
                if time.monotonic() >= next_sweep or self._sweep_now:
                    self._sweep_now = False
                    next_sweep = time.monotonic() + (0 if self.sweep() else interval)
                    next_tick = 0.0  # another process may have changed a schedule
                if time.monotonic() >= next_trim:
                    next_trim = time.monotonic() + (0 if self.trim() else interval)
                if self._rescheduled or time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + max(self.tick(), SHORTEST_PAUSE)
            except Exception:
                # The relay must survive any error; later sweeps find what was missed.
                logger.exception("the relay stumbled, and goes on in %g s", interval)
                next_sweep = next_due = next_tick = next_trim = time.monotonic() + interval

    def _empty_inbox(self) -> float:
        """Dispatch the jobs passed to `wake`; returns the seconds until the first one that must still be claimed."""
        soonest = math.inf
        while self._inbox:
            time.sleep(max(self._next_push - time.monotonic(), 0))
            self._next_push = time.monotonic() + GATHER_SECONDS
            batch = [self._inbox.popleft() for _ in range(min(len(self._inbox), BATCH))]
            self._dispatch([one for one in batch if one.is_claimed or one.wait > 0])
            soonest = min([soonest, *(max(one.wait, 0) for one in batch if one.wait > 0 or not one.is_claimed)])
        return soonest

    def _withdraw_some(self) -> None:
        batch = [self._ended.popleft() for _ in range(min(len(self._ended), BATCH))]
        if batch and self._is_redis_usable():
            if self._ended:
                self._wakeup.set()
            with self._postgres, self._redis.on("withdraw"):
                self._ended.extend(withdrawing.withdraw(batch))  # no wake-up: RQ needs some time first

    def dispatch_due(self) -> float:
        """Dispatch due jobs that are not in RQ; returns the seconds until the next is due, or Redis is retried."""
        wait = None
        if self._redis_answers():
            with self._postgres:
                claimed = jobs.claim_due(BATCH)
                self._dispatch(self._not_queued(claimed))
                if len(claimed) == BATCH and self._redis.is_available:
                    return 0.0
                wait = jobs.seconds_to_next()
        if not self._redis.is_available:
            return self._redis.seconds_to_retry
        return math.inf if wait is None else wait

    def tick(self) -> float:
        """Submit the jobs of due schedules; returns the seconds until the next tick."""
        wait = None
        self._rescheduled = False  # race: before the query, so that no later change is missed
        with self._postgres:
            self.wake(jobs.schedules.tick(BATCH))
            wait = jobs.schedules.seconds_to_next()
        return math.inf if wait is None else wait

    def sweep(self) -> bool:
        """Expire, recover, re-dispatch and prune jobs; returns True if there may be more to do at once."""
        counts: list[int] = []
        gone: list[UUID] = []
        with self._postgres:
            counts = [jobs.expire(BATCH), self._recover_lapsed()]
            if any(counts):
                self.look()  # for their webhook deliveries, and the retries of lost attempts
            counts.append(jobs.delete_old_keys(BATCH))
            jobs.fold_counters()
            if self._redis_answers():
                with self._redis.on("move"):
                    self._old_names.step()
                counts += [self._dispatch(self._missing(name)) for name in settings().JOBSVC_QUEUES]
                resumed = [jobs.claim_resumed(name, BATCH) for name in settings().JOBSVC_QUEUES]
                for held in (*resumed, self._next_of_keys()):
                    self._dispatch(self._not_queued(held))
                    if self._redis.is_available:  # else a later sweep finds them again
                        counts.append(len(held))
                with self._redis.on("offer"):
                    self._dispatch(self._offers.claim())
            gone = self._retention.step(BATCH)
        if gone and self._is_redis_usable():
            with self._redis.on("forget"):
                rq_cleanup.forget(gone)
        return bool(gone) or BATCH in counts

    def trim(self) -> bool:
        """Remove all but the newest ended jobs from RQ; returns True if there may be more to remove."""
        if self._is_redis_usable():
            with self._redis.on("trim"):
                return BATCH in rq_cleanup.trim(BATCH)
        return False

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
                return []  # another application's job; check ours when it is gone
            # RQ's scheduler may have queued a job two sweeps before we claimed it.
            grace = settings().JOBSVC_LEASE_SECONDS + 2 * settings().JOBSVC_SWEEP_SECONDS
            return jobs.claim_missing(name, head, grace, BATCH)
        return []

    def _dispatch(self, batch: Sequence[Dispatch]) -> int:
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
