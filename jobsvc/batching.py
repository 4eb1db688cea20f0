"""Jobs by the batch: taken, started, run and finished many at a time, which pays each round trip once.

No more are held than can be run within AHEAD_SECONDS, so that a lone job waits for no other, and
slow ones are left to whoever is free. What is held up all the same goes back, uncounted.
"""

import logging
import math
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from threading import Event, Thread
from typing import Protocol
from uuid import UUID

from redis import RedisError

from jobsvc import handlers, jobs
from jobsvc.attempt import failed
from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable
from jobsvc.execution import store, tell_all
from jobsvc.held import Ended, Held
from jobsvc.horse import SLOTS, Horse
from jobsvc.jobs import AttemptEnd, Failure, Started
from jobsvc.outages import Server
from jobsvc.stable import Stable
from jobsvc.states import Outcome
from jobsvc.supervision import is_to_be_killed, keep_leases, look_at

logger = logging.getLogger("jobsvc.worker")

AHEAD_SECONDS = 0.05
"""So much work is held beyond what runs."""

FLUSH_AT, FLUSH_SECONDS = 100, 0.003
"""Ends are stored when there are so many, when one is so old, or when nothing else runs."""

SHOW_AFTER_SECONDS = 0.1
"""RQ is told of an execution that takes longer; of a shorter one it sees the end alone."""

LOOK_SECONDS, AWAY_SECONDS = 0.05, 0.5
"""How often it is looked after what runs; and tried again what Postgres or Redis didn't take."""


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
        """Show how these ended, and push who can be dispatched now."""

    def beat(self) -> None:
        """Show that the worker lives; called at every look."""


class Batches:
    """The jobs that one worker holds, by their slots. All is done on its main thread, but for the leases."""

    def __init__(self, doorbell: Doorbell, worker: str, threads: int) -> None:
        self.held: dict[int, Held] = {}
        self.stable = Stable(threads)
        self._doorbell, self._worker, self._threads = doorbell, worker, threads
        self._free = list(range(SLOTS))
        self._ended: list[Ended] = []  # not stored yet
        self._stored: list[Ended] = []  # not shown yet
        self._seconds_each = 1.0  # a moving average of how long an attempt takes
        self._next_take = self._next_flush = self._next_show = self._next_look = 0.0
        self._first_end, self._stop_at = 0.0, math.inf
        self._postgres = Server("Postgres", StoreUnavailable, logger)
        self._lease = settings().JOBSVC_LEASE_SECONDS

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_at < math.inf

    @property
    def holds_ends(self) -> bool:
        """Whether there are ends that Postgres doesn't know yet."""
        return bool(self._ended)

    def stop(self) -> None:
        """Take no more, give back what has not begun, and let the rest run on for JOBSVC_SHUTDOWN_SECONDS."""
        self._stop_at = min(self._stop_at, time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS)

    def run(self, job_ids: list[str]) -> None:
        """Run these, and whatever else can be taken meanwhile, until none is held."""
        over = Event()
        Thread(target=keep_leases, args=(self._all_held, over), daemon=True).start()
        try:
            self._start(job_ids)
            while self.held or self._ended or self._stored:
                self._wait()
                self._hear_all()
                now = time.monotonic()
                if self._ended and now >= self._flush_at():
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

    def _wait(self) -> None:
        seconds = self._until() - time.monotonic()
        if len(self.held) > self._threads and seconds > 0:
            time.sleep(min(seconds, FLUSH_SECONDS))  # not woken up for each end, when many will come
        else:
            self.stable.wait(seconds, FLUSH_SECONDS)

    def _until(self) -> float:
        """When there is something to do at the latest."""
        moments = [self._next_look]
        if self._ended:
            moments.append(self._flush_at())
        if not self.is_stopping and len(self.held) < self._threads:
            moments.append(self._next_take)
        return min(moments)

    def _all_held(self) -> list[Held]:
        return [*list(self.held.values()), *(one.held for one in list(self._ended))]

    # Taking and starting

    def _room(self) -> int:
        if self.is_stopping or time.monotonic() < self._next_take:
            return 0
        most = self._threads + int(self._threads * AHEAD_SECONDS / self._seconds_each)
        if len(self.held) > max(self._threads - 1, most // 2):  # enough to go on with; so the next ones come as a batch
            return 0
        return min(most - len(self.held), len(self._free))

    def _take(self, room: int) -> None:
        job_ids: list[str] = []
        with suppress(RedisError):
            job_ids = self._doorbell.take(room)
        # Where nothing waits, there is time.
        self._next_take = time.monotonic() + (FLUSH_SECONDS if job_ids else 3 * FLUSH_SECONDS)
        if job_ids:
            self._start(job_ids)

    def _start(self, job_ids: list[str]) -> None:
        now, started = time.monotonic(), None
        with self._postgres:
            started = jobs.start([UUID(id_) for id_ in job_ids if _is_uuid(id_)], self._worker, self._lease)
        if started is None:
            with suppress(RedisError):  # else a sweep finds them missing
                self._doorbell.give_back(job_ids)
            self._next_take = now + AWAY_SECONDS
            if not self.held:
                time.sleep(AWAY_SECONDS)
            return
        by_id = {str(one.job_id): one for one in started}
        if refused := set(job_ids) - by_id.keys():
            with suppress(RedisError):
                self._doorbell.refused(refused)
        # In the order in which they were taken, the queues' own; Postgres returns them in any.
        self._give([(by_id[id_], now) for id_ in dict.fromkeys(job_ids) if id_ in by_id])

    def _give(self, started: Iterable[tuple[Started, float]]) -> None:
        """Have horses run these, each started at this time."""
        by_horse: dict[Horse, list[Held]] = {}
        for one, since in started:
            handler = handlers.find(one.type)
            is_isolated = handler is not None and handler.isolated
            is_too_much = is_isolated and self._isolated() >= self._threads
            horse = self.stable.for_one() if is_isolated and not is_too_much else self.stable.for_many()
            held = Held(one, self._free.pop(), horse, since, renew_at=since + self._lease / 3)
            self.held[held.slot] = held
            if is_too_much:
                self._end(held, held.handed_back(begun=False))
                self._seconds_each = 1.0  # so that no more is taken than can run at once
            else:
                by_horse.setdefault(horse, []).append(held)
        for horse, work in by_horse.items():
            horse.give((held.slot, held.started, held.since + self._lease) for held in work)

    def _isolated(self) -> int:
        return sum(held.horse.is_for_one for held in self.held.values())

    # What the horses tell

    def _hear_all(self) -> None:
        for horse in self.stable:
            is_dead = horse.is_dead  # before what it told last is heard
            for kind, *rest in self.stable.hear(horse):
                getattr(self, f"_on_{kind}")(*rest)
            if is_dead:
                self._bury(horse)

    def _on_ended(self, slot: int, end: AttemptEnd, seconds: float) -> None:
        self._seconds_each += (max(seconds, 1e-5) - self._seconds_each) / 8
        self._end(self.held[slot], end, seconds)

    def _on_returned(self, slots: list[int]) -> None:
        for slot in slots:
            self._end(self.held[slot], self.held[slot].handed_back(begun=False))

    def _on_progress(self, slot: int, progress: dict[str, object]) -> None:
        if held := self.held.get(slot):
            with suppress(StoreUnavailable):
                jobs.report(held.started, progress)

    def _on_last_words(self, slot: int, end: AttemptEnd) -> None:
        if held := self.held.get(slot):
            held.last_words = end

    def _bury(self, horse: Horse) -> None:
        """Decide on the jobs of a process that has died."""
        unbegun: list[tuple[Started, float]] = []
        for held in [held for held in self.held.values() if held.horse is horse]:
            if not held.begun and not self.is_stopping:
                del self.held[held.slot]
                self._free.append(held.slot)
                unbegun.append((held.started, held.since))
            elif held.overdue:
                self._end(held, held.last_words or failed(held.started, held.overdue))
            elif not held.begun or horse.kill_at < math.inf:  # it was ended by us, and not for this job's sake
                self._end(held, held.handed_back(begun=bool(held.begun)))
            else:
                lost = Failure("WorkerLost", "the process of the attempt died before it ended")
                self._end(held, AttemptEnd(held.started.job_id, held.started.fence, Outcome.LOST, failure=lost))
        self.stable.dismiss(horse)
        self._give(unbegun)

    def _end(self, held: Held, end: AttemptEnd, seconds: float = 0.0) -> None:
        del self.held[held.slot]
        held.is_ended = True
        self._first_end = self._first_end if self._ended else time.monotonic()
        self._ended.append(Ended(held, end, seconds))

    # Storing and showing the ends

    def _flush_at(self) -> float:
        is_due = not self.held or len(self._ended) >= FLUSH_AT
        return max(0.0 if is_due else self._first_end + FLUSH_SECONDS, self._next_flush)

    def _flush(self) -> None:
        stored = None
        with self._postgres:
            stored = store([one.end for one in self._ended])
        if stored is None:
            if not self._next_flush:
                logger.warning("%s: its outcome waits for Postgres, of %d", self._ended[0].end.job_id, len(self._ended))
            self._next_flush = self._next_take = time.monotonic() + AWAY_SECONDS
            return
        self._next_flush = 0.0
        pairs = zip(self._ended, stored, strict=True)
        ended = [replace(one, end=end, verdict=verdict) for one, (end, verdict) in pairs]
        tell_all([(one.held.started, one.end, one.verdict) for one in ended])
        self._ended = []
        self._stored += ended
        by_horse: dict[Horse, list[int]] = {}
        for one in ended:
            by_horse.setdefault(one.held.horse, []).append(one.held.slot)
            self._free.append(one.held.slot)
        for horse, slots in by_horse.items():
            if horse in self.stable:
                self.stable.dismiss(horse) if horse.is_for_one else horse.stored(slots)

    def _show(self) -> None:
        try:
            self._doorbell.show_ended(self._stored)
            self._stored = []
        except RedisError:
            self._next_show = time.monotonic() + AWAY_SECONDS
            if self.is_stopping:
                self._stored = []  # what RQ shows of them expires, or is put right by a sweep

    def _look(self) -> None:
        self._next_look = time.monotonic() + LOOK_SECONDS
        for horse in self.stable:
            horse.look(is_busy=any(held.begun for held in self.held.values() if held.horse is horse))
        for held in list(self.held.values()):
            look_at(held, self._stop_at)
        long_ago = time.monotonic() - SHOW_AFTER_SECONDS
        with suppress(RedisError):
            self._doorbell.beat()
            self._doorbell.show_begun(
                [held for held in self.held.values() if not held.execution_id and 0 < held.begun < long_ago]
            )
        for horse in self.stable:
            running = [held for held in self.held.values() if held.horse is horse]
            if horse.kill_at < math.inf and not running:
                self.stable.dismiss(horse)
            elif horse.kill_at < math.inf and is_to_be_killed(horse, running):
                horse.kill()

    def _abandon(self) -> None:
        """Leave at once: what ran goes back, what had ended is stored if Postgres is there."""
        self._stop_at = 0.0
        for horse in self.stable:
            horse.close_by(0.0)
            horse.end()
        self._hear_all()
        with suppress(Exception):
            store([one.end for one in self._ended])


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
