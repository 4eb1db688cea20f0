"""Jobs by the batch: taken, started, run and finished many at a time, which pays each round trip once.

No more are held than can be run within AHEAD_SECONDS, so that a lone job waits for no other, and
slow ones are left to whoever is free. What is held up all the same goes back, uncounted.
"""

import logging
import math
import selectors
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Protocol
from uuid import UUID

from redis import RedisError

from jobsvc import handlers, jobs
from jobsvc.attempt import failed
from jobsvc.clock import (
    CANCEL_GRACE_SECONDS,
    CANCEL_NOTICE_SECONDS,
    GRACE_SECONDS,
    AttemptTimeout,
    Cancelled,
    HandBack,
)
from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable
from jobsvc.execution import store, tell_all
from jobsvc.horse import SLOTS, Horse
from jobsvc.jobs import AttemptEnd, Failure, Started, Verdict
from jobsvc.outages import Server
from jobsvc.states import Outcome

logger = logging.getLogger("jobsvc.worker")

AHEAD_SECONDS = 0.05
"""So much work is held beyond what runs."""

HELD_UP_SECONDS = 0.1
"""What has not begun after so long goes back."""

FLUSH_AT, FLUSH_SECONDS = 100, 0.003
"""Ends are stored when there are so many, when one is so old, or when nothing else runs."""

SHOW_AFTER_SECONDS = 0.05
"""RQ is told of an execution that takes longer; of a shorter one it sees the end alone."""

CANCEL_DRAIN_SECONDS = 1.0
"""What else runs in the process of a handler that ignores a cancel has so long to end."""

LAST_WORDS_SECONDS = 0.5
"""How long a process whose handler does not stop may take to tell what that had logged."""

LOOK_SECONDS, AWAY_SECONDS = 0.05, 0.5
"""How often it is looked after what runs; and tried again what Postgres or Redis didn't take."""


@dataclass(eq=False)
class Held:
    """A job that this worker has started. Times are monotonic seconds."""

    started: Started
    slot: int
    horse: Horse
    since: float
    renew_at: float
    is_shown: bool = False
    is_called_off: bool = False
    is_stopped_by_rq: bool = False
    give_up_at: float = math.inf  # its handler was told to stop, and should have by then
    overdue: BaseException | None = None  # why its process is to end
    last_words: AttemptEnd | None = None


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, after how many seconds, and where that put the job: nowhere, if it was no longer ours."""

    held: Held
    end: AttemptEnd
    seconds: float
    verdict: Verdict | None = None


class Doorbell(Protocol):
    """What the batches need of RQ. Each of these may raise RedisError."""

    def take(self, most: int) -> list[str]:
        """Up to `most` ids from the queues, without waiting."""

    def give_back(self, job_ids: Iterable[str]) -> None:
        """Put these ids where they were taken from."""

    def refused(self, job_ids: Iterable[str]) -> None:
        """These ids were not to be started."""

    def show_begun(self, held: Iterable[Held]) -> None:
        """Show that these run."""

    def show_ended(self, ended: list[Ended]) -> None:
        """Show how these ended, and who can be dispatched now."""

    def beat(self) -> None:
        """Show that the worker lives; called at every look."""


class Batches:
    """The jobs that one worker holds. All is done on its main thread, but for the leases."""

    def __init__(self, doorbell: Doorbell, worker: str, threads: int) -> None:
        self.held: dict[int, Held] = {}
        self._doorbell, self._worker, self._threads = doorbell, worker, threads
        self._free = list(range(SLOTS))
        self._horses: list[Horse] = []
        self._selector = selectors.DefaultSelector()
        self._ended: list[Ended] = []  # not stored yet
        self._stored: list[Ended] = []  # not shown yet
        self._seconds_each = 1.0  # a moving average of how long an attempt takes
        self._next_take = self._next_flush = self._next_show = self._next_look = 0.0
        self._stop_at = self._flush_at = math.inf
        self._postgres = Server("Postgres", StoreUnavailable, logger)
        self._lease = settings().JOBSVC_LEASE_SECONDS

    def ready(self) -> None:
        """Have a process for the handlers, so that the first job needn't wait for one."""
        self._horse_for_many()

    def run(self, job_ids: list[str]) -> None:
        """Run these and whatever else can be taken meanwhile, until none is held."""
        over = Event()
        Thread(target=self._keep_leases, args=(over,), daemon=True).start()
        try:
            self._start(job_ids)
            while self.held or self._ended or self._stored:
                self._wait()
                self._collect()
                now = time.monotonic()
                if self._ended and now >= self._next_flush and self._is_worth_a_flush(now):
                    self._flush()
                if self._stored and now >= self._next_show:
                    self._show()
                if now >= self._next_look:
                    self._look()
                if (room := self._room()) > 0:
                    self._take(room)
        except BaseException:
            self._abandon()
            raise
        finally:
            over.set()

    def stop(self) -> None:
        """Take no more, give back what has not begun, and let the rest run on for JOBSVC_SHUTDOWN_SECONDS."""
        self._stop_at = min(self._stop_at, time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS)

    def kill(self) -> None:
        """End the processes of the handlers; what runs in them is lost, and tried again. From any thread."""
        for horse in list(self._horses):
            horse.kill()

    def close(self) -> None:
        """End them when nothing is held any more."""
        for horse in list(self._horses):
            self._dismiss(horse)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_at < math.inf

    @property
    def holds_ends(self) -> bool:
        """Whether there are ends that Postgres doesn't know yet."""
        return bool(self._ended)

    # Taking and starting

    def _room(self) -> int:
        if self.is_stopping or time.monotonic() < self._next_take:
            return 0
        ahead = int(self._threads * AHEAD_SECONDS / self._seconds_each)
        return min(self._threads + ahead - len(self.held), len(self._free))

    def _take(self, room: int) -> None:
        job_ids: list[str] = []
        with suppress(RedisError):
            job_ids = self._doorbell.take(room)
        # Where nothing waits, there is time.
        self._next_take = time.monotonic() + (FLUSH_SECONDS if job_ids else 3 * FLUSH_SECONDS)
        if job_ids:
            self._start(job_ids)

    def _start(self, job_ids: list[str]) -> None:
        now = time.monotonic()
        ours = {id_: UUID(id_) for id_ in job_ids if _is_uuid(id_)}
        started: list[Started] | None = None
        with self._postgres:
            started = jobs.start(list(ours.values()), self._worker, self._lease)
        if started is None:
            self._doorbell.give_back(job_ids)
            self._next_take = now + AWAY_SECONDS
            if not self.held:
                time.sleep(AWAY_SECONDS)
            return
        if refused := set(job_ids) - {str(one.job_id) for one in started}:
            self._doorbell.refused(refused)
        self._give([(one, now) for one in started])

    def _give(self, started: Iterable[tuple[Started, float]]) -> None:
        """Have them run by horses; each was started at this time."""
        by_horse: dict[Horse, list[Held]] = {}
        for one, since in started:
            handler = handlers.find(one.type)
            horse = self._new_horse(is_for_one=True) if handler and handler.isolated else self._horse_for_many()
            held = Held(one, self._free.pop(), horse, since, renew_at=since + self._lease / 3)
            self.held[held.slot] = held
            by_horse.setdefault(horse, []).append(held)
        for horse, work in by_horse.items():
            horse.give((held.slot, held.started, held.since + self._lease) for held in work)

    def _horse_for_many(self) -> Horse:
        usable = (horse for horse in self._horses if not horse.is_for_one and not horse.is_closing)
        return next(usable, None) or self._new_horse(is_for_one=False)

    def _new_horse(self, is_for_one: bool) -> Horse:
        horse = Horse(1 if is_for_one else self._threads, is_for_one)
        self._horses.append(horse)
        self._selector.register(horse, selectors.EVENT_READ)
        return horse

    def _dismiss(self, horse: Horse) -> None:
        self._selector.unregister(horse)
        self._horses.remove(horse)
        horse.close()

    # What the horses tell

    def _wait(self) -> None:
        now = time.monotonic()
        until = self._next_look
        if self._ended:
            until = min(until, max(self._flush_at if self._is_running() else now, self._next_flush))
        if not self.is_stopping and len(self.held) < self._threads:
            until = min(until, self._next_take)
        if any([horse.flush() for horse in self._horses]):
            until = min(until, now + FLUSH_SECONDS)
        self._selector.select(max(until - now, 0))

    def _is_running(self) -> bool:
        return len(self.held) > 0

    def _collect(self) -> None:
        for horse in list(self._horses):
            self._hear(horse)
            if horse.is_dead:
                self._hear(horse)
                self._bury(horse)

    def _hear(self, horse: Horse) -> None:
        while messages := horse.messages():
            for kind, *rest in messages:
                getattr(self, f"_on_{kind}")(*rest)

    def _on_ended(self, slot: int, end: AttemptEnd, seconds: float) -> None:
        self._seconds_each += (max(seconds, 1e-5) - self._seconds_each) / 8
        self._end(self.held[slot], end, seconds)

    def _on_returned(self, slots: list[int]) -> None:
        for slot in slots:
            self._hand_back(self.held[slot], begun=False)

    def _on_progress(self, slot: int, progress: dict[str, object]) -> None:
        if held := self.held.get(slot):
            with suppress(StoreUnavailable):
                jobs.report(held.started, progress)

    def _on_last_words(self, slot: int, end: AttemptEnd) -> None:
        if held := self.held.get(slot):
            held.last_words = end

    def _bury(self, horse: Horse) -> None:
        """Decide on the jobs of a process that has died."""
        unbegun: list[Held] = []
        for held in [held for held in self.held.values() if held.horse is horse]:
            if not horse.begun(held.slot):
                unbegun.append(held)
            elif held.overdue:
                self._end(held, held.last_words or failed(held.started, held.overdue))
            elif horse.is_closing:  # by us, and not for its own sake
                self._hand_back(held)
            else:
                lost = Failure("WorkerLost", "the process of the attempt died before it ended")
                self._end(held, AttemptEnd(held.started.job_id, held.started.fence, Outcome.LOST, failure=lost))
        self._dismiss(horse)
        for held in unbegun:
            if self.is_stopping:
                self._hand_back(held, begun=False)
            else:
                self._forget(held)
                self._give([(held.started, held.since)])

    def _hand_back(self, held: Held, begun: bool = True) -> None:
        one = held.started
        self._end(held, AttemptEnd(one.job_id, one.fence, Outcome.HANDED_BACK, delay=0, begun=begun))

    def _end(self, held: Held, end: AttemptEnd, seconds: float = 0.0) -> None:
        del self.held[held.slot]
        if not self._ended:
            self._flush_at = time.monotonic() + FLUSH_SECONDS
        self._ended.append(Ended(held, end, seconds))

    def _forget(self, held: Held) -> None:
        del self.held[held.slot]
        self._free.append(held.slot)

    # Storing and showing the ends

    def _is_worth_a_flush(self, now: float) -> bool:
        return len(self._ended) >= FLUSH_AT or now >= self._flush_at or not self.held

    def _flush(self) -> None:
        stored = None
        with self._postgres:
            stored = store([one.end for one in self._ended])
        if stored is None:
            self._next_flush = self._next_take = time.monotonic() + AWAY_SECONDS
            return
        ended = [
            replace(one, end=end, verdict=verdict) for one, (end, verdict) in zip(self._ended, stored, strict=True)
        ]
        tell_all([(one.held.started, one.end, one.verdict) for one in ended])
        self._ended = []
        self._stored += ended
        by_horse: dict[Horse, list[int]] = {}
        for one in ended:
            by_horse.setdefault(one.held.horse, []).append(one.held.slot)
            self._free.append(one.held.slot)
        for horse, slots in by_horse.items():
            if horse.is_for_one and horse in self._horses:
                self._dismiss(horse)
            elif horse in self._horses:
                horse.stored(slots)

    def _show(self) -> None:
        try:
            self._doorbell.show_ended(self._stored)
            self._stored = []
        except RedisError:
            self._next_show = time.monotonic() + AWAY_SECONDS
            if self.is_stopping:
                self._stored = []  # RQ's view of them expires, or is put right by a sweep

    def _abandon(self) -> None:
        """Leave at once: what ran goes back, what had ended is stored if Postgres is there."""
        for horse in list(self._horses):
            horse.is_closing = True
            horse.kill()
            self._hear(horse)
            self._stop_at = 0.0
            self._bury(horse)
        with suppress(Exception):
            store([one.end for one in self._ended])

    # Looking after what runs

    def _look(self) -> None:
        now = time.monotonic()
        self._next_look = now + LOOK_SECONDS
        for held in list(self.held.values()):
            self._look_at(held, now)
        unshown = [
            held for held in self.held.values() if not held.is_shown and self._ran(held, now) > SHOW_AFTER_SECONDS
        ]
        with suppress(RedisError):
            self._doorbell.beat()
            self._doorbell.show_begun(unshown)
        for horse in [horse for horse in self._horses if horse.is_closing]:
            running = [held for held in self.held.values() if held.horse is horse]
            if not running:
                self._dismiss(horse)
            elif now >= horse.kill_at or all(held.overdue and (held.last_words or now >= held.give_up_at) for held in running):
                horse.kill()

    def _ran(self, held: Held, now: float) -> float:
        begun = held.horse.begun(held.slot)
        return now - begun if begun else 0.0

    def _look_at(self, held: Held, now: float) -> None:
        horse, begun = held.horse, held.horse.begun(held.slot)
        if not begun:
            if self.is_stopping or held.is_called_off or now - max(held.since, horse.went_on_at) > HELD_UP_SECONDS:
                horse.recall()
        elif held.overdue:
            pass
        elif now >= begun + held.started.timeout + GRACE_SECONDS:
            self._give_up(held, AttemptTimeout(held.started.timeout), settings().JOBSVC_SHUTDOWN_SECONDS)
        elif now >= held.give_up_at:
            reason = Cancelled("the job was cancelled") if held.is_called_off else HandBack("the worker shut down")
            self._give_up(held, reason, CANCEL_DRAIN_SECONDS)
        elif held.give_up_at < math.inf:
            pass
        elif held.is_called_off:
            held.give_up_at = now + CANCEL_NOTICE_SECONDS + CANCEL_GRACE_SECONDS
            horse.cancel(held.slot)
        elif now >= self._stop_at:
            held.give_up_at = now + GRACE_SECONDS
            horse.hand_back(held.slot)

    def _give_up(self, held: Held, reason: BaseException, drain: float) -> None:
        """Have the process end of a handler that did not stop; what else runs there has `drain` seconds."""
        logger.error("%s did not stop when it was told to; its process ends", held.started.job_id)
        held.overdue, held.give_up_at = reason, time.monotonic() + LAST_WORDS_SECONDS
        held.horse.is_closing = True
        held.horse.give_up(held.slot)
        held.horse.kill_at = min(held.horse.kill_at, time.monotonic() + drain)
        held.horse.recall()

    def _keep_leases(self, over: Event) -> None:
        """Renew the leases, and look for cancels; a thread's work, so that nothing holds it up."""
        while not over.wait(min(1.0, self._lease / 3)):
            now = time.monotonic()
            held = [*list(self.held.values()), *(one.held for one in list(self._ended))]
            with suppress(StoreUnavailable):
                if due := [one for one in held if now >= one.renew_at]:
                    kept = jobs.renew([one.started for one in due], self._lease)
                    for one in due:
                        is_kept = one.started.job_id in kept
                        one.renew_at = now + self._lease / 3 if is_kept else math.inf
                        if not is_kept and one.slot in self.held:
                            logger.warning("%s lost its lease; its outcome will not count", one.started.job_id)
                if old := {one.started.job_id: one for one in held if now - one.since > HELD_UP_SECONDS}:
                    for job_id in jobs.called_off([one.started for one in old.values()]):
                        old[job_id].is_called_off = True


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
