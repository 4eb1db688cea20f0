"""Batches of jobs: takes, starts, runs and finishes many at a time, so that they share round trips.

Each job goes through take, start, give, receive, finish and flush. More jobs than can run at once are taken only from
queues with a backlog (see `prefetch`); those that can't start soon are returned uncounted.
"""

import logging
import math
import time
from contextlib import suppress
from threading import Thread

from redis import RedisError

from jobsvc import handlers
from jobsvc.config import settings
from jobsvc.dispatch.rq_names import ids_in
from jobsvc.errors import StoreUnavailable
from jobsvc.execution.lease_keeper import LeaseKeeper
from jobsvc.jobs import AttemptResult, StartedAttempt, completed, returned_uncounted
from jobsvc.processes.timetable import STORE_SECONDS
from jobsvc.servers.outages import OutageTracker
from jobsvc.worker import messages
from jobsvc.worker.child import MIN_SLOTS, ChildProcess
from jobsvc.worker.child_pool import ChildPool
from jobsvc.worker.completer import FLUSH_SECONDS, Completer
from jobsvc.worker.prefetch import Prefetch
from jobsvc.worker.reports import Reports
from jobsvc.worker.rq_queue import RQQueue
from jobsvc.worker.running import FinishedAttempt, Phase, Requests, RunningJob, apply_all, checked_messages
from jobsvc.worker.supervisor import CHECK_SECONDS, check_all, result_of_exit
from jobsvc.worker.thread_limit import ThreadLimit
from jobsvc.worker.unconfirmed_starts import UnconfirmedStarts

logger = logging.getLogger("jobsvc.worker")

CRASH_PAUSE_SECONDS = 0.5
"""Pause before the next start, and so the next fork, after a child process died before it ran a job."""


class BatchRunner:
    """Runs the jobs of one worker, by slot. Main thread only, except for the renewal of leases."""

    def __init__(self, queue: RQQueue, worker: str, concurrency: int) -> None:
        self.running: dict[int, RunningJob] = {}
        self._queue, self._concurrency = queue, concurrency
        self._free = list(range(max(2 * concurrency, MIN_SLOTS)))
        self.children = ChildPool(concurrency, len(self._free))
        self._limit = ThreadLimit(concurrency, self.running)
        self._requests = Requests()
        self._prefetch = Prefetch(concurrency)
        self._next_take = self._next_check = self._paused_until = 0.0
        self._stop_at = math.inf
        postgres = self._postgres = OutageTracker("Postgres", StoreUnavailable)
        self._starts = UnconfirmedStarts(postgres, worker, self._limit.types, queue.served)
        self._completer = Completer(postgres, queue.show_finished)
        self._reports = Reports()
        self._keeper: Thread | None = None
        self._lease = settings().JOBSVC_LEASE_SECONDS

    def stop(self) -> None:
        """Take no more jobs, return unstarted ones, and let the rest run for JOBSVC_SHUTDOWN_SECONDS."""
        self._stop_at = min(self._stop_at, time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS)
        self._postgres.shorten_pauses()

    def run(self, job_ids: list[str]) -> None:
        """Run these jobs, and others taken while they run, until none is left."""
        if self._keeper is None:
            self._keeper = Thread(target=LeaseKeeper(self._leased).run, daemon=True)
            self._keeper.start()
        try:
            self._start(job_ids)
            while self._is_busy and time.monotonic() < self._stop_at + STORE_SECONDS:
                self._wait()
                self._receive_all()
                now = time.monotonic()
                if now >= self._completer.due_at(is_idle=not self.running):
                    self._flush()
                self._reports.store()
                if not (self._is_stopping and self.running):  # Redis may hang, and running jobs must be returned
                    self._completer.show(is_last_try=self._is_stopping)
                if now >= self._next_check:
                    self._check()
                self._take()
            if unstored := len(self._leased()):
                logger.error("shutdown: %d results not stored in time, their attempts end as lost", unstored)
            elif time.monotonic() < self._stop_at + STORE_SECONDS:
                self._starts.undo()
        except BaseException:
            self._abandon()
            raise

    @property
    def _is_stopping(self) -> bool:
        return self._stop_at < math.inf

    @property
    def _is_busy(self) -> bool:
        if self.running or self._completer.has_pending:
            return True
        return not self._is_stopping and (self._starts.has_unconfirmed or self._prefetch.wants_more or self._is_paused)

    @property
    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _wait(self) -> None:
        """Wait for a message from a child process, until the next step is due."""
        due_at = min(self._next_check, self._completer.due_at(is_idle=not self.running), self._reports.due_at())
        if not self._is_stopping and len(self.running) < self._concurrency:
            due_at = min(due_at, self._take_at)
        seconds = due_at - time.monotonic()
        if len(self.running) > self._concurrency:  # a child with waiting jobs doesn't wake us up for each result
            seconds = min(seconds, FLUSH_SECONDS)
        self.children.wait(seconds, FLUSH_SECONDS)

    @property
    def _take_at(self) -> float:
        return max(self._next_take, self._paused_until, self._postgres.retry_at)

    def _leased(self) -> list[RunningJob]:
        return [*list(self.running.values()), *self._completer.not_stored]

    def _take(self) -> None:
        if self._is_stopping or time.monotonic() < self._take_at or not self._starts.undo():
            return
        room = self._prefetch.room(len(self.running))
        if not room:
            return
        most = self._limit.room(min(room, len(self._free)))
        job_ids: list[str] = []
        with suppress(RedisError):
            job_ids = self._queue.take(most, self._concurrency - len(self.running), self._limit.types())
        self._next_take = time.monotonic() + (1 if job_ids else 3) * FLUSH_SECONDS  # empty queues are polled less often
        if job_ids:
            self._start(job_ids)
        else:
            self._prefetch.after_take(0, 0)

    def _start(self, job_ids: list[str]) -> None:
        now = time.monotonic()
        started = self._starts.start(ids_in(job_ids), (one.started.job_id for one in self._leased()))
        if started is None:
            with suppress(RedisError):  # otherwise a sweep re-dispatches them
                self._queue.give_back(job_ids)
            self._prefetch.after_take(0, 0)
            if not (self.running or self._starts.has_unconfirmed):
                self._paused_until = self._postgres.retry_at
            return
        by_id = {str(one.job_id): one for one in started}
        self._prefetch.after_take(len(job_ids), len(started))
        if refused := set(job_ids) - by_id.keys():
            with suppress(RedisError):
                self._queue.refused(refused)
        # In the order of the queues, as taken; Postgres returns them in any order.
        self._give([(by_id[id_], now) for id_ in dict.fromkeys(job_ids) if id_ in by_id])

    def _give(self, started: list[tuple[StartedAttempt, float]]) -> None:
        """Pass started jobs to child processes, each with its start time (monotonic seconds)."""
        by_child: dict[ChildProcess, list[RunningJob]] = {}
        for one, since in started:
            handler = handlers.find(one.type)
            is_isolated = handler is not None and handler.isolated
            is_too_much = is_isolated and not self._limit.may_fork
            child = self.children.for_one() if is_isolated and not is_too_much else self.children.for_many()
            job = RunningJob(one, self._free.pop(), child, since, self._requests, handler=handler)
            self.running[job.slot] = job
            if is_too_much:
                self._return_unstarted(job)
            else:
                by_child.setdefault(child, []).append(job)
        for child, work in by_child.items():
            child.give([messages.Work(job.slot, job.started, job.since + self._lease) for job in work])

    def _receive_all(self) -> None:
        for child in self.children:
            is_dead = child.is_dead  # race: checked first, so that its last messages are read below
            for message in checked_messages(child, self.running):
                self._receive(child, message)
            if is_dead:
                self._handle_child_exit(child)

    def _receive(self, child: ChildProcess, message: messages.Message) -> None:
        match message:
            case messages.Completed(slot, seconds):
                job = self.running[slot]
                self._finish(job, completed(job.started.job_id, job.started.fence), seconds)
            case messages.Finished(slot, result, seconds):
                self._finish(self.running[slot], result, seconds)
            case messages.Returned(slots):
                for slot in slots:
                    self._return_unstarted(self.running[slot])
            case messages.Reported(slot, _, _, progress, lines):
                self._reports.take(self.running[slot], progress, lines)
            case messages.PartialResult(slot, result):
                self.running[slot].partial_result = result
            case messages.Retired():
                child.is_retired = True

    def _return_unstarted(self, job: RunningJob) -> None:
        self._prefetch.after_return()
        self._finish(job, returned_uncounted(job.started.job_id, job.started.fence, handler_called=False))

    def _handle_child_exit(self, child: ChildProcess) -> None:
        """Finish the jobs of a child process that has died; give those that were waiting to another one."""
        unstarted = []
        for job in [job for job in self.running.values() if job.child is child]:
            if job.update_phase() is Phase.WAITING and child.has_called and not (self._is_stopping or self._is_paused):
                del self.running[job.slot]
                self._free.append(job.slot)
                unstarted.append((job.started, job.since))
            else:
                self._finish(job, result_of_exit(job, self._stop_at))
        self.children.dismiss(child)
        if not child.has_called and child.kill_at == math.inf:  # the next one may die too, e.g. if memory is short
            self._paused_until = time.monotonic() + CRASH_PAUSE_SECONDS
        self._give(unstarted)

    def _finish(self, job: RunningJob, result: AttemptResult, seconds: float = 0.0) -> None:
        self._prefetch.after_attempt(seconds)
        del self.running[job.slot]
        job.move(Phase.FINISHED)
        self._completer.add(FinishedAttempt(job, self._reports.complete(job, result), seconds))

    def _flush(self) -> None:
        by_child: dict[ChildProcess, list[int]] = {}
        for one in self._completer.flush():
            by_child.setdefault(one.job.child, []).append(one.job.slot)
            self._free.append(one.job.slot)
        for child, slots in by_child.items():
            if child in self.children:
                self.children.dismiss(child) if child.is_for_one else child.send(messages.Stored(slots))

    def _check(self) -> None:
        self._next_check = time.monotonic() + CHECK_SECONDS
        apply_all(self._requests)
        check_all(list(self.running.values()), self.children, self._stop_at)
        if not self._is_stopping:
            with suppress(RedisError):
                self._queue.records.update(self.running.values())

    def _abandon(self) -> None:
        """Stop at once: return running jobs, and store results if Postgres is available."""
        self._stop_at = 0.0
        for child in self.children:
            child.end()
        self._receive_all()
        with suppress(Exception):
            self._flush()
