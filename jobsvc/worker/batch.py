"""Batches of jobs: takes, starts, runs and finishes many at a time, so that they share round trips.

Prefetches beyond the concurrency limit only from queues with a backlog, and at most AHEAD_SECONDS of estimated work, so
that idle workers get slow jobs. Prefetched jobs that can't start soon are returned uncounted.
"""

import logging
import math
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

from redis import RedisError

from jobsvc import handlers
from jobsvc.config import settings
from jobsvc.dispatch.rq_names import ids_in
from jobsvc.errors import StoreUnavailable
from jobsvc.execution.attempt import failed
from jobsvc.execution.lease_keeper import LeaseKeeper
from jobsvc.execution.reporter import Report
from jobsvc.jobs import AttemptResult, StartedAttempt, completed, lost, returned_uncounted
from jobsvc.processes.timetable import STORE_SECONDS
from jobsvc.servers.outages import OutageTracker
from jobsvc.worker import messages
from jobsvc.worker.child import SLOTS, ChildProcess
from jobsvc.worker.child_pool import ChildPool
from jobsvc.worker.completer import FLUSH_SECONDS, Completer
from jobsvc.worker.message_check import checked_messages
from jobsvc.worker.messages import Message
from jobsvc.worker.reports import Reports
from jobsvc.worker.rq_queue import RQQueue
from jobsvc.worker.running import FinishedAttempt, Phase, Requests, RunningJob
from jobsvc.worker.supervisor import check_all
from jobsvc.worker.unconfirmed_starts import UnconfirmedStarts

logger = logging.getLogger("jobsvc.worker")

AHEAD_SECONDS = 0.05
"""Estimated work that is prefetched beyond the running jobs."""

MOST_REFUSED = 100
"""Largest number of additional jobs that are prefetched because the previous ones could not be started."""

SHOW_AFTER_SECONDS = 0.1
"""Age from which on a running job is shown as started in RQ; of shorter ones RQ shows only the result."""

CRASH_PAUSE_SECONDS = 0.5
"""Pause before the next start, and so the next fork, after a child process died before it ran a job."""

CHECK_SECONDS = 0.05
"""Seconds between checks on running jobs (timeout, cancel, shutdown)."""


class BatchRunner:
    """Runs the jobs of one worker, by slot. Main thread only, except for the renewal of leases."""

    def __init__(self, queue: RQQueue, worker: str, threads: int) -> None:
        self.running: dict[int, RunningJob] = {}
        self.children = ChildPool(threads)
        self._queue, self._threads = queue, threads
        self._free = list(range(SLOTS))
        self._requests: Requests = SimpleQueue()
        self._seconds_each = 1.0  # moving average of an attempt's duration
        self._extra = 0
        self._next_take = self._next_check = self._paused_until = 0.0
        self._stop_at = math.inf
        postgres = self._postgres = OutageTracker("Postgres", StoreUnavailable)
        self._starts = UnconfirmedStarts(postgres, worker, handlers.types)
        self._completer = Completer(postgres, queue.show_finished)
        self._reports = Reports(postgres)
        self._keeper: Thread | None = None
        self._lease = settings().JOBSVC_LEASE_SECONDS

    @property
    def is_stopping(self) -> bool:
        """Return True once `stop` was called."""
        return self._stop_at < math.inf

    def stop(self) -> None:
        """Take no more jobs, return unstarted ones, and let the rest run for JOBSVC_SHUTDOWN_SECONDS."""
        self._stop_at = min(self._stop_at, time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS)
        self._postgres.shorten_pauses()
        self._completer.retry_now()

    def run(self, job_ids: list[str]) -> None:
        """Run these jobs, and others taken while they run, until none is left."""
        if self._keeper is None:
            self._keeper = Thread(target=LeaseKeeper(self._leased).run, daemon=True)
            self._keeper.start()
        try:
            self._start(job_ids)
            while self._is_busy:
                self._wait()
                self._receive_all()
                now = time.monotonic()
                if now >= self._completer.due_at(is_idle=not self.running):
                    self._flush()
                if now >= self._reports.due_at():
                    self._reports.store()
                if not (self.is_stopping and self.running):  # Redis may hang, and running jobs must be returned in time
                    self._completer.show(is_last_try=self.is_stopping)
                if now >= self._next_check:
                    self._check()
                self._take()
                if time.monotonic() >= self._stop_at + STORE_SECONDS:
                    return self._leave_unstored()
            self._starts.undo()
        except BaseException:
            self._abandon()
            raise

    @property
    def _is_busy(self) -> bool:
        if self.running or self._completer.has_pending:
            return True
        return not self.is_stopping and (self._starts.has_unconfirmed or self._extra > 0 or self._is_paused)

    @property
    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _leave_unstored(self) -> None:
        if unstored := len(self.running) + len(self._completer.not_stored):
            logger.error("shutdown: outcomes not stored in time, their attempts end as lost (%d)", unstored)

    def _wait(self) -> None:
        seconds = self._until() - time.monotonic()
        if len(self.running) > self._threads:  # a child with waiting jobs doesn't wake us up for each result
            seconds = min(seconds, FLUSH_SECONDS)
        self.children.wait(seconds, FLUSH_SECONDS)

    def _until(self) -> float:
        """Return when (monotonic seconds) the next step is due at the latest."""
        moments = [self._next_check, self._completer.due_at(is_idle=not self.running), self._reports.due_at()]
        if not self.is_stopping and len(self.running) < self._threads:
            moments.append(max(self._next_take, self._paused_until))
        return min(moments)

    def _leased(self) -> list[RunningJob]:
        return [*list(self.running.values()), *self._completer.not_stored]

    def _take(self) -> None:
        if self.is_stopping or time.monotonic() < max(self._next_take, self._paused_until):
            return
        if not self._starts.undo():
            self._next_take = time.monotonic() + self._postgres.pause
            return
        most = self._threads + int(self._threads * AHEAD_SECONDS / self._seconds_each) + self._extra
        if len(self.running) > max(self._threads - 1, most // 2):  # enough, so that the next come as a batch
            return
        job_ids: list[str] = []
        with suppress(RedisError):
            room = min(most - len(self.running), len(self._free))
            job_ids = self._queue.take(room, free=max(self._threads - len(self.running), 0))
        self._next_take = time.monotonic() + (1 if job_ids else 3) * FLUSH_SECONDS  # empty queues are polled less often
        if job_ids:
            self._start(job_ids)
        else:
            self._extra = 0

    def _start(self, job_ids: list[str]) -> None:
        now = time.monotonic()
        started = self._starts.start(ids_in(job_ids), (one.started.job_id for one in self._leased()))
        if started is None:
            with suppress(RedisError):  # otherwise a sweep re-dispatches them
                self._queue.give_back(job_ids)
            self._next_take, self._extra = time.monotonic() + self._postgres.pause, 0
            if not (self.running or self._starts.has_unconfirmed):
                self._paused_until = self._next_take
            return
        by_id = {str(one.job_id): one for one in started}
        # Refused jobs take no time: if all were refused, take more next time.
        self._extra = 0 if started else min(2 * self._extra + 8, MOST_REFUSED)
        if refused := set(job_ids) - by_id.keys():
            with suppress(RedisError):
                self._queue.refused(refused)
        # In the order of the queues, as taken; Postgres returns them in any order.
        self._give([(by_id[id_], now) for id_ in dict.fromkeys(job_ids) if id_ in by_id])

    def _give(self, started: Iterable[tuple[StartedAttempt, float]]) -> None:
        """Pass started jobs to child processes, each with its start time (monotonic seconds)."""
        by_child: dict[ChildProcess, list[RunningJob]] = {}
        for one, since in started:
            handler = handlers.find(one.type)
            is_isolated = handler is not None and handler.isolated
            is_too_much = is_isolated and sum(job.child.is_for_one for job in self.running.values()) >= self._threads
            child = self.children.for_one() if is_isolated and not is_too_much else self.children.for_many()
            job = RunningJob(one, self._free.pop(), child, since, self._requests)
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

    def _receive(self, child: ChildProcess, message: Message) -> None:
        match message:
            case messages.Completed(slot, seconds):
                started = self.running[slot].started
                self._on_finished(slot, completed(started.job_id, started.fence), seconds)
            case messages.Finished(slot, result, seconds):
                self._on_finished(slot, result, seconds)
            case messages.Returned(slots):
                for slot in slots:
                    self._return_unstarted(self.running[slot])
            case messages.Reported(slot, _, _, progress, lines):
                job = self.running[slot]
                self._reports.take(job, Report(slot, job.started, progress, lines))
            case messages.PartialResult(slot, result):
                self.running[slot].partial_result = result
            case messages.Retired():
                child.is_retired = True

    def _on_finished(self, slot: int, result: AttemptResult, seconds: float) -> None:
        self._seconds_each += (max(seconds, 1e-5) - self._seconds_each) / 8
        self._finish(self.running[slot], result, seconds)

    def _return_unstarted(self, job: RunningJob) -> None:
        """Return an unstarted job uncounted; assume long attempts, so that it isn't prefetched again."""
        self._seconds_each = 1.0
        self._return_uncounted(job, handler_called=False)

    def _return_uncounted(self, job: RunningJob, handler_called: bool) -> None:
        self._finish(job, returned_uncounted(job.started.job_id, job.started.fence, handler_called))

    def _handle_child_exit(self, child: ChildProcess) -> None:
        """Decide on the jobs of a child process that has died."""
        unstarted: list[tuple[StartedAttempt, float]] = []
        for job in [job for job in self.running.values() if job.child is child]:
            is_waiting = job.update_phase() is Phase.WAITING
            if is_waiting and child.has_called and not self.is_stopping and not self._is_paused:
                del self.running[job.slot]
                self._free.append(job.slot)
                unstarted.append((job.started, job.since))
            elif job.kill_reason:
                self._finish(job, job.partial_result or failed(job.started, job.kill_reason))
            # We killed the process because of another job, or a handler ended it when it was interrupted at shutdown.
            elif is_waiting or child.kill_at < math.inf or time.monotonic() >= self._stop_at:
                self._return_uncounted(job, handler_called=not is_waiting)
            else:
                message = "the process of the attempt died before it ended"
                self._finish(job, lost(job.started.job_id, job.started.fence, message))
        self.children.dismiss(child)
        if not child.has_called and child.kill_at == math.inf:  # the next one may die too, e.g. if memory is short
            self._paused_until = time.monotonic() + CRASH_PAUSE_SECONDS
        self._give(unstarted)

    def _finish(self, job: RunningJob, result: AttemptResult, seconds: float = 0.0) -> None:
        del self.running[job.slot]
        job.move(Phase.FINISHED)
        self._completer.add(FinishedAttempt(job, self._reports.complete(job, result), seconds))

    def _flush(self) -> None:
        by_child: dict[ChildProcess, list[int]] = {}
        for one in self._completer.flush():
            by_child.setdefault(one.job.child, []).append(one.job.slot)
            self._free.append(one.job.slot)
        if not by_child:
            self._next_take = time.monotonic() + self._postgres.pause
        for child, slots in by_child.items():
            if child in self.children:
                self.children.dismiss(child) if child.is_for_one else child.send(messages.Stored(slots))

    def _check(self) -> None:
        self._next_check = time.monotonic() + CHECK_SECONDS
        while not self._requests.empty():
            job, request = self._requests.get()
            job.apply(request)
        check_all(list(self.running.values()), self.children, self._stop_at)
        if self.is_stopping:
            return
        long_ago = time.monotonic() - SHOW_AFTER_SECONDS
        with suppress(RedisError):
            self._queue.records.beat()
            self._queue.records.show_running(
                [job for job in self.running.values() if not job.execution_id and 0 < job.called_at < long_ago]
            )

    def _abandon(self) -> None:
        """Stop at once: return running jobs, and store results if Postgres is available."""
        self._stop_at = 0.0
        for child in self.children:
            child.close_by(0.0)
            child.end()
        self._receive_all()
        with suppress(Exception):
            self._flush()
