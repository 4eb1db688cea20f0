"""The relay: dispatches jobs to RQ, at once when it is woken, and by sweeping for what was left behind.

Any number of relays may run, in API processes and beside workers; each job is claimed by one.
Postgres says what has to be dispatched, so that nothing depends on a relay's memory.
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
"""The most that one round of one duty takes on."""

MOST_TO_WITHDRAW = 100 * BATCH
"""More ended jobs than this are not kept in mind; the workers pass them by in RQ."""

SHORTEST_PAUSE = 0.02
"""Seconds between two looks for due jobs, so that many due times close together share one."""

GATHER_SECONDS = 0.005
"""Seconds between two pushes of new jobs. The first one goes at once; those that come right after it go together."""


class Relay:
    """One process' relay. `wake` may be called from any thread; the rest belongs to the relay's own."""

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
        """Dispatch these jobs, which are stored, and claimed if they are due. Returns at once, whatever Redis does."""
        self._inbox.extend(news)
        self._wakeup.set()

    def withdraw(self, job_ids: Iterable[UUID]) -> None:
        """Take these jobs, which have ended or are gone, out of RQ; nothing depends on it. Returns at once."""
        self._ended.extend(job_ids)
        self._wakeup.set()

    def reschedule(self) -> None:
        """Look at the schedules anew: one was changed, and the change is committed."""
        self._rescheduled = True
        self._wakeup.set()

    def release_withheld(self) -> None:
        """Sweep at once, for jobs that were held and may go now. Returns at once."""
        self._sweep_now = True
        self._wakeup.set()

    def look(self) -> None:
        """Look at once for jobs that are due and were not dispatched. Returns at once."""
        self._shall_look = True
        self._wakeup.set()

    def start(self) -> "Relay":
        """Run in a daemon thread, which ends with the process; and anew in a process forked from this one."""
        os.register_at_fork(after_in_child=self._start_afresh)
        self._start_afresh()
        return self

    def _start_afresh(self) -> None:
        self.__init__()  # type: ignore[misc]  # a lock may have been held when we were forked
        self._thread = threading.Thread(target=self.run, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread: of a process that came on an errand, and is not to sweep by the settings of its shell."""
        self._is_stopped = True
        self._wakeup.set()
        self._thread.join()

    def settle(self) -> None:
        """Once it was stopped: do what `wake` and `withdraw` asked for, of up to BATCH jobs, before this returns."""
        self._empty_inbox()
        self._withdraw_some()

    def run(self) -> None:
        """Dispatch and sweep until it is stopped; not at once, so that a process which ends soon never sweeps."""
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
                # Nothing here is worth losing the relay over: what was missed is found again.
                logger.exception("the relay stumbled, and goes on in %g s", interval)
                next_sweep = next_due = next_tick = next_trim = time.monotonic() + interval

    def _empty_inbox(self) -> float:
        """Dispatch what came by `wake`; returns the seconds until the first of it that is still to be claimed."""
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
                self._ended.extend(withdrawing.withdraw(batch))  # without a ring: RQ needs a moment

    def dispatch_due(self) -> float:
        """Dispatch what is due and not in RQ; returns the seconds until more is, or until Redis is tried again."""
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
        """Make the jobs of the schedules that are due; returns the seconds until the next one is."""
        wait = None
        self._rescheduled = False  # before looking, so that no change after the look is missed
        with self._postgres:
            self.wake(jobs.schedules.tick(BATCH))
            wait = jobs.schedules.seconds_to_next()
        return math.inf if wait is None else wait

    def sweep(self) -> bool:
        """Find what expired, was lost by its worker or by Redis, or is over; returns whether there may be more."""
        counts: list[int] = []
        gone: list[UUID] = []
        with self._postgres:
            counts = [jobs.expire(BATCH), self._recover_lapsed()]
            if any(counts):
                self.look()  # the ends of these jobs may have to be told, the lost ones be tried again
            counts.append(jobs.forget_keys(BATCH))
            jobs.fold_tallies()
            if self._redis_answers():
                with self._redis.on("move"):
                    self._old_names.step()
                counts += [self._dispatch(self._missing(name)) for name in settings().JOBSVC_QUEUES]
                resumed = [jobs.claim_resumed(name, BATCH) for name in settings().JOBSVC_QUEUES]
                for held in (*resumed, self._next_of_keys()):
                    self._dispatch(self._not_queued(held))
                    if self._redis.is_available:  # else they are found again, after a pause
                        counts.append(len(held))
                with self._redis.on("offer"):
                    self._dispatch(self._offers.claim())
            gone = self._retention.step(BATCH)
        if gone and self._is_redis_usable():
            with self._redis.on("forget"):
                rq_cleanup.forget(gone)
        return bool(gone) or BATCH in counts

    def trim(self) -> bool:
        """Have RQ forget ended jobs but for the newest; returns whether there are more at once."""
        if self._is_redis_usable():
            with self._redis.on("trim"):
                return BATCH in rq_cleanup.trim(BATCH)
        return False

    def _recover_lapsed(self) -> int:
        """None within a lease's time after an outage of Postgres, in which no worker could renew its leases."""
        lease = settings().JOBSVC_LEASE_SECONDS
        return jobs.recover_lapsed(BATCH, lease) if self._postgres.seconds_up >= lease else 0

    def _next_of_keys(self) -> Sequence[Dispatch]:
        """For free places that nobody told of; up to BATCH keys each time, in turn."""
        keys = jobs.held_keys(self._last_key, BATCH)
        self._last_key = keys[-1] if len(keys) == BATCH else ""
        return jobs.claim_next(keys, BATCH)

    def _not_queued(self, claimed: Sequence[Dispatch]) -> Sequence[Dispatch]:
        """These but for those that RQ's scheduler, or its retry without an interval, was quicker to queue."""
        if claimed:  # else Redis isn't asked, and can't be told to be back
            with self._redis.on("read"):
                return not_queued(claimed, rq_redis.connection())
        return claimed

    def _missing(self, name: str) -> list[Dispatch]:
        with self._redis.on("read"):
            ids = rq_redis.queue(name).get_job_ids(0, 1)
            try:
                head = UUID(ids[0]) if ids else None
            except ValueError:
                return []  # somebody else's job; ours are looked for when it has gone
            # RQ's scheduler may have queued a job two sweeps before we claimed it.
            grace = settings().JOBSVC_LEASE_SECONDS + 2 * settings().JOBSVC_SWEEP_SECONDS
            return jobs.claim_missing(name, head, grace, BATCH)
        return []

    def _dispatch(self, batch: Sequence[Dispatch]) -> int:
        """Push these jobs to RQ, or take their claims back for a later sweep; returns how many were pushed."""
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
        """Return True if Redis is available, as far as one knows; asks before it is used for the first time."""
        if self._redis.is_available and self._is_probed:
            return True
        return self._redis_answers()

    def _redis_answers(self) -> bool:
        """Ask whether Redis can be used, unless the pause after its last failure is still on."""
        if not self._redis.is_worth_a_try():
            return False
        self._is_probed = False
        with self._redis.on(PROBE):
            rq_redis.probe()
            self._is_probed = True
        return self._is_probed
