"""RQ's worker as the source of jobs for batches, and the state of these jobs as shown in RQ."""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import uuid4

from redis import RedisError
from redis.client import Pipeline
from rq import Queue, Retry, Worker, worker_registration
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.suspension import is_suspended

from jobsvc import handlers, jobs
from jobsvc.config import settings
from jobsvc.dispatch import ownership, rq_redis, rq_workers
from jobsvc.dispatch.enqueue import FAILURE_TTL, RESULT_TTL, RUN, SERIALIZER
from jobsvc.dispatch.rq_names import from_rq, ids_in, ours_of, to_rq, within
from jobsvc.errors import StoreUnavailable
from jobsvc.execution import rq_entry as attempts
from jobsvc.jobs import JobTransition
from jobsvc.states import Outcome, Status
from jobsvc.worker import rq_view
from jobsvc.worker.pausable_queue import PausableQueue
from jobsvc.worker.rq_records import show_completed
from jobsvc.worker.running import FinishedAttempt, RunningJob
from jobsvc.worker.withheld_jobs import WithheldJobs

logger = logging.getLogger("jobsvc.worker")

BEAT_SECONDS = 1.0
"""Seconds between heartbeats of a worker that runs jobs."""


MANY = 10
"""Queue length from which on a worker prefetches."""


class QueueingWorker(Worker):
    """An RQ worker that takes jobs for its batches, and shows their state in RQ."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shown: dict[RunningJob, tuple[RQJob, Execution]] = {}
        self._is_one_by_one = False
        self._is_foreign_next = False
        self._next_beat = 0.0
        self._withheld = WithheldJobs()
        self._is_taken = False  # our Redis namespace, by another database
        self._next_check = 0.0

    def may_take(self, is_late: bool = False) -> bool:
        """Return False if another database has our namespace; checked each JOBSVC_SWEEP_SECONDS or if `is_late`."""
        if is_late or time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + settings().JOBSVC_SWEEP_SECONDS
            try:
                ownership.confirm(rq_redis.connection())
                self._is_taken = False
            except ownership.NamespaceTaken as error:
                if not self._is_taken:
                    logger.error("worker: takes no job: %s", error)
                self._is_taken = True
            except RedisError:
                pass  # raised again by calls that need Redis
        return not self._is_taken

    def take(self, most: int, free: int) -> list[str]:
        """Take up to `free` ids, or `most` if MANY wait in a queue, in queue order; none while suspended.

        Within a queue, jobs that other workers refused come first, since they have been due longest.
        """
        taken: list[str] = []
        if self._is_one_by_one or self._is_foreign_next or self._stop_requested or is_suspended(self.connection):
            return taken
        if not self.may_take():
            return taken
        queues = PausableQueue.served(self._ordered_queues)
        with self.connection.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.llen(queue.key)
            lengths: list[int] = pipeline.execute()
        withheld = self._withheld.count(ours_of(queue.name for queue in queues))
        for queue, length in zip(queues, lengths, strict=True):
            name = from_rq(queue.name) or ""
            room = (most if length + withheld.get(name, 0) >= MANY else free) - len(taken)
            if withheld and room > 0:
                claimed = self._withheld.claim(name, room)
                taken += claimed
                room -= len(claimed)
            if length and room > 0:
                try:
                    popped = cast(list[bytes] | None, self.connection.lpop(queue.key, room))
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
        names = ours_of(queue.name for queue in PausableQueue.served(self._ordered_queues))
        withheld = self._withheld.count(names)
        if not withheld or is_suspended(self.connection):
            return []
        taken: list[str] = []
        for name in names:
            taken += self._withheld.claim(name, most - len(taken))
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
        awaiting = {str(job_id) for job_id in attempts.handle_refused(ids_in(job_ids), self.connection)}
        rq_view.show_waiting(self.connection, awaiting)
        ours: list[str] = []
        for job in self._fetch(job_ids - awaiting):
            if is_ours(job):
                rq_view.step_aside(self, job, None)
                ours.append(job.id)
            else:
                self._is_foreign_next = True
                self._to_the_front(job)
        # Race: RQ's scheduler, on a host whose clock is ahead, queued a job early. If it came due between the refusal
        # and `step_aside`, the relay has claimed it but did not queue it, since it was shown as queued.
        with suppress(StoreUnavailable):
            jobs.release_due(ids_in(ours))

    def _fetch(self, job_ids: Iterable[str]) -> Iterator[RQJob]:
        for job in filter(None, RQJob.fetch_many(list(job_ids), self.connection, SERIALIZER)):
            if is_ours(job):  # an older version, with other queue names, may have dispatched it too
                job.origin = within(job.origin)
            yield job

    def _to_the_front(self, job: RQJob) -> None:
        Queue(job.origin, self.connection).push_job_id(job.id, at_front=True)

    def show_running(self, running: Iterable[RunningJob]) -> None:
        """Show these jobs as started: as RQ's worker does before it forks, and its fork before it runs a job."""
        for one in running:
            job = self._rq_job(one)
            execution = self.prepare_execution(job)
            self._shown[one], one.execution_id = (job, execution), execution.id
            self.prepare_job_execution(job)

    def show_finished(self, finished: list[FinishedAttempt]) -> None:
        """Show results in RQ, completed ones in one round trip; dispatch jobs that may start now.

        Does nothing if another database has our namespace. Results other than completed are shown as by RQ.
        """
        if self._is_taken:
            for one in finished:
                self._shown.pop(one.job, None)
            return
        self._show_completed([one for one in finished if one.is_completed])
        for one in finished:
            if one.result.handler_called and not one.is_completed:
                self._show_other(one)
            self._shown.pop(one.job, None)
        transitions = [one.transition for one in finished if one.transition]
        if keys := {one.concurrency_key for one in transitions if one.concurrency_key}:
            attempts.dispatch_withheld(keys, self.connection)
        if returned := [one for one in finished if one.result.outcome == Outcome.HANDED_BACK]:
            attempts.dispatch(lambda: jobs.claim_due(len(returned)), self.connection)

    def _show_completed(self, done: list[FinishedAttempt]) -> None:
        if not done:
            return
        with self.connection.pipeline(transaction=False) as pipeline:
            for one in done:
                if shown := self._shown.get(one.job):
                    self.cleanup_execution(shown[0], pipeline, shown[1])
            pipeline.hincrby(self.key, "successful_job_count", len(done))
            self.increment_total_working_time(timedelta(seconds=sum(one.seconds for one in done)), pipeline)
            for one in show_completed(pipeline, self.name, done):
                job = self._rq_job(one.job)
                Queue(job.origin, self.connection, serializer=SERIALIZER).enqueue_dependents(job)

    def _show_other(self, one: FinishedAttempt) -> None:
        _, execution = self._shown.get(one.job, (None, None))
        try:
            job = self.job_class.fetch(str(one.job.started.job_id), self.connection, SERIALIZER)
        except NoSuchJobError:
            return
        job.origin = to_rq(one.job.started.queue)
        if one.transition is None or one.result.outcome == Outcome.HANDED_BACK:
            rq_view.step_aside(self, job, execution)
        else:
            self._show_not_completed(one, one.transition, self._finished_job(one, job), execution)

    def _show_not_completed(
        self, one: FinishedAttempt, transition: JobTransition, job: RQJob, execution: Execution | None
    ) -> None:
        queue = Queue(job.origin, self.connection, serializer=SERIALIZER)
        execution = execution or Execution(uuid4().hex, job.id, self.connection)  # not shown as started
        if transition.status == Status.SCHEDULED:  # snoozed
            retry = Retry(max=2**31, interval=attempts.whole_seconds_until(transition.due_at))
            self.handle_job_retry(job, queue, retry, job.started_job_registry, execution)
            return
        attempts.plan_retries(job, transition)
        if one.job.is_stopped_by_rq:
            self._stopped_job_id = job.id
        self.handle_job_failure(job, queue, exc_string=attempts.failure_text(one.result), execution=execution)

    def _rq_job(self, running: RunningJob) -> RQJob:
        job = RQJob(str(running.started.job_id), self.connection, SERIALIZER)
        job.origin, job.description = to_rq(running.started.queue), running.started.type
        job.timeout, job.result_ttl, job.failure_ttl = int(running.started.timeout), RESULT_TTL, FAILURE_TTL
        job.func_name = RUN
        return job

    def _finished_job(self, one: FinishedAttempt, job: RQJob) -> RQJob:
        job.ended_at = job.last_heartbeat = datetime.now(UTC)
        job.started_at = job.ended_at - timedelta(seconds=one.seconds)
        job.worker_name = self.name
        return job

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send RQ's heartbeat with this worker's job types; register the worker again if Redis has lost it."""
        super().heartbeat(timeout, pipeline)
        types = json.dumps(sorted(handlers.types()))
        if pipeline is not None:
            pipeline.hset(self.key, rq_workers.TYPES, types)
        elif self.connection.hset(self.key, rq_workers.TYPES, types) and self.birth_date:
            with self.connection.pipeline() as anew:
                anew.hset(self.key, mapping={**self.serialize(), "state": self.get_state()})
                worker_registration.register(self, anew)
                anew.execute()

    def beat(self) -> None:
        """Send heartbeats and run maintenance, as RQ's worker does between jobs and during one."""
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self.heartbeat()
        for job, execution in self._shown.values():
            if (datetime.now(UTC) - execution.last_heartbeat).total_seconds() > self.job_monitoring_interval:
                self.maintain_heartbeats(job, execution)
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def handle_job_failure(
        self, job: RQJob, queue: Queue, started_job_registry: Any = None, exc_string: str = "", execution: Any = None
    ) -> None:
        """Handle the failure as RQ does, unless another worker has started the job since."""
        if is_ours(job) and rq_view.is_running_elsewhere(self, job):
            rq_view.step_aside(self, job, execution)
        else:
            super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)


def is_ours(job: RQJob) -> bool:
    """Return True if this is one of our jobs, not a foreign one in the same RQ."""
    try:
        return job.func_name == RUN
    except DeserializationError:  # RQ shows it as failed
        return False
