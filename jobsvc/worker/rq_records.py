"""A worker's attempts as shown in RQ: as started while they run, then their results.

Completed ones are written for many jobs at once, in a fraction of the time of RQ's own `handle_job_success`, which
writes one after the other. A test compares the records of the two, key by key.

RQ writes the end of every execution to its job, as if there were only one. After a duplicate dispatch, a lost lease or
a returned job it would show the job as finished without a result even if another attempt decides otherwise. So
`step_aside` corrects the state that RQ shows of a job, after an execution whose result does not count.
"""

import json
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry, Worker
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.registry import FinishedJobRegistry
from rq.results import Result
from rq.utils import utcformat

from jobsvc import jobs
from jobsvc.db.models import Job
from jobsvc.dispatch.enqueue import AT_ONCE, FAILURE_TTL, RESULT_TTL, RUN, SERIALIZER
from jobsvc.dispatch.rq_names import to_rq
from jobsvc.errors import JobNotFound, StoreUnavailable
from jobsvc.execution import rq_entry as attempts
from jobsvc.states import Outcome, Status
from jobsvc.worker.running import FinishedAttempt, RunningJob

SHOW_AFTER_SECONDS = 0.1
"""Age from which on a running job is shown as started in RQ; of shorter ones RQ shows only the result."""

BEAT_SECONDS = 1.0
"""Seconds between heartbeats of a worker that runs jobs."""

KEPT_RESULTS = 10
"""Number of newest results that RQ keeps of a job."""

MOST_BYTES = 1024 * 1024
"""Largest size of all results in one script call, unless a single result is larger."""

_WRITE = Path(__file__).with_name("write_completed.lua").read_text()

_SHOWN = {
    Status.PROCESSING: JobStatus.STARTED,
    Status.COMPLETED: JobStatus.FINISHED,
    Status.FAILED: JobStatus.FAILED,
    Status.CANCELLED: JobStatus.CANCELED,
}


class RQRecords:
    """Shows the attempts of one RQ worker. Methods may raise RedisError."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._connection = worker, worker.connection
        self._shown: dict[RunningJob, tuple[RQJob, Execution]] = {}
        self._next_beat = 0.0

    def update(self, running: Collection[RunningJob]) -> None:
        """Send heartbeats, run maintenance, and show jobs as started from a certain age on; called at each check."""
        self._beat()
        long_ago = time.monotonic() - SHOW_AFTER_SECONDS
        for one in running:
            if not one.execution_id and 0 < one.called_at < long_ago:
                # As RQ's worker does before it forks, and its fork before it runs a job.
                job = self._rq_job(one)
                execution = self._worker.prepare_execution(job)
                self._shown[one], one.execution_id = (job, execution), execution.id
                self._worker.prepare_job_execution(job)

    def show_finished(self, finished: list[FinishedAttempt]) -> None:
        """Show results in RQ: completed ones in one round trip, others as RQ does."""
        self._show_completed([one for one in finished if one.is_completed])
        for one in finished:
            if one.result.handler_called and not one.is_completed:
                self._show_other(one)
        self.forget(finished)

    def forget(self, finished: list[FinishedAttempt]) -> None:
        """Drop these attempts without showing anything."""
        for one in finished:
            self._shown.pop(one.job, None)

    def _show_completed(self, done: list[FinishedAttempt]) -> None:
        if not done:
            return
        with self._connection.pipeline(transaction=False) as pipeline:
            for one in done:
                if shown := self._shown.get(one.job):
                    self._worker.cleanup_execution(shown[0], pipeline, shown[1])
            pipeline.hincrby(self._worker.key, "successful_job_count", len(done))
            self._worker.increment_total_working_time(timedelta(seconds=sum(one.seconds for one in done)), pipeline)
            for one in write_completed(pipeline, self._worker.name, done):
                job = self._rq_job(one.job)
                Queue(job.origin, self._connection, serializer=SERIALIZER).enqueue_dependents(job)

    def _show_other(self, one: FinishedAttempt) -> None:
        _, execution = self._shown.get(one.job, (None, None))
        try:
            job = RQJob.fetch(str(one.job.started.job_id), self._connection, SERIALIZER)
        except NoSuchJobError:
            return
        job.origin = to_rq(one.job.started.queue)
        transition = one.transition
        if transition is None or one.result.outcome == Outcome.HANDED_BACK:
            step_aside(self._worker, job, execution)
            return
        job.ended_at = job.last_heartbeat = datetime.now(UTC)
        job.started_at = job.ended_at - timedelta(seconds=one.seconds)
        job.worker_name = self._worker.name
        queue = Queue(job.origin, self._connection, serializer=SERIALIZER)
        execution = execution or Execution(uuid4().hex, job.id, self._connection)  # not shown as started
        if transition.status == Status.SCHEDULED:  # snoozed
            retry = Retry(max=2**31, interval=attempts.whole_seconds_until(transition.due_at))
            self._worker.handle_job_retry(job, queue, retry, job.started_job_registry, execution)
            return
        attempts.plan_retries(job, transition)
        if one.job.is_stopped_by_rq:
            self._worker._stopped_job_id = job.id
        self._worker.handle_job_failure(job, queue, exc_string=attempts.failure_text(one.result), execution=execution)

    def _rq_job(self, running: RunningJob) -> RQJob:
        job = RQJob(str(running.started.job_id), self._connection, SERIALIZER)
        job.origin, job.description = to_rq(running.started.queue), running.started.type
        job.timeout, job.result_ttl, job.failure_ttl = int(running.started.timeout), RESULT_TTL, FAILURE_TTL
        job.func_name = RUN
        return job

    def _beat(self) -> None:
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self._worker.heartbeat()
        for job, execution in self._shown.values():
            if (datetime.now(UTC) - execution.last_heartbeat).total_seconds() > self._worker.job_monitoring_interval:
                self._worker.maintain_heartbeats(job, execution)
        if self._worker.should_run_maintenance_tasks:
            self._worker.run_maintenance_tasks()  # type: ignore[no-untyped-call]


def write_completed(pipeline: Pipeline, worker: str, completed: Sequence[FinishedAttempt]) -> list[FinishedAttempt]:
    """Write these jobs as completed and execute `pipeline`; returns those that may have dependents in RQ."""
    now = time.time()
    kinds = (JobStatus.FINISHED, Result.Type.SUCCESSFUL.value)
    common = (*kinds, RESULT_TTL, KEPT_RESULTS, worker, _format(now), now)
    finished: dict[str, dict[str, float]] = defaultdict(dict)
    for portion in _portions(completed):
        keys: list[str] = []
        own: list[str | bytes | float] = []
        for one, result in portion:
            job_id = str(one.job.started.job_id)
            keys += (RQJob.key_for(job_id), f"{RQ_KEY_PREFIX}:results:{job_id}")
            own += (_format(now - one.seconds), result, one.job.execution_id, now - one.seconds)
            finished[one.job.started.queue][job_id] = now + RESULT_TTL
        pipeline.eval(_WRITE, len(keys), *keys, *common, *own)
    for queue, members in finished.items():
        pipeline.zadd(FinishedJobRegistry.key_template.format(to_rq(queue)), members)
    pipeline.exists(*(RQJob.dependents_key_for(job_id) for members in finished.values() for job_id in members))
    return list(completed) if pipeline.execute()[-1] else []


def _portions(completed: Sequence[FinishedAttempt]) -> Iterator[list[tuple[FinishedAttempt, bytes]]]:
    """Yield jobs for one script call, up to AT_ONCE, with their results as RQ stores them, b"" for none."""
    portion: list[tuple[FinishedAttempt, bytes]] = []
    weight = 0
    for one in completed:
        result = b"" if one.result.result is None else b64encode(json.dumps(one.result.result).encode())
        if portion and (len(portion) == AT_ONCE or weight + len(result) > MOST_BYTES):
            yield portion
            portion, weight = [], 0
        portion.append((one, result))
        weight += len(result)
    yield portion


def _format(moment: float) -> str:
    return utcformat(datetime.fromtimestamp(moment, UTC))


def is_running_elsewhere(worker: Worker, job: RQJob) -> bool:
    """Return True if Postgres shows another worker on this job; False also if that can't be read."""
    row = _read(job)
    return row is not None and row.worker not in (None, worker.name)


def show_waiting(connection: Redis, job_ids: Collection[str]) -> None:
    """Show these jobs, queued before and withheld now, as scheduled: `step_aside` for many jobs at once."""
    keys = [RQJob.key_for(job_id) for job_id in job_ids]
    with connection.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hget(key, "status")
        queued = [key for key, status in zip(keys, pipeline.execute(), strict=True) if status == b"queued"]
        for key in queued:
            pipeline.hset(key, "status", JobStatus.SCHEDULED)
        pipeline.execute()


def step_aside(worker: Worker, job: RQJob, execution: Execution | None) -> None:
    """End only this execution; set what RQ wrote to the job at its start to the state in Postgres.

    Without an execution, the same for what RQ wrote when it queued the job.
    """

    def write(pipeline: Pipeline) -> None:
        status, name = pipeline.hmget(job.key, "status", "worker_name")
        is_from_here = (status, name) == (b"started", worker.name.encode()) if execution else status == b"queued"
        row = _read(job)
        pipeline.multi()
        worker.cleanup_execution(job, pipeline=pipeline, execution=execution)
        if row is not None and is_from_here:
            # `scheduled` for all waiting jobs: the relay does not dispatch jobs that are shown as queued.
            shown = _SHOWN.get(Status(row.status), JobStatus.SCHEDULED)
            pipeline.hset(job.key, mapping={"status": shown, "worker_name": row.worker or ""})
        if row is None or row.finished_at is not None:
            # RQ removed the key's expiry when the execution started.
            failed = row is not None and row.status == Status.FAILED
            pipeline.expire(job.key, (job.failure_ttl if failed else job.result_ttl) or worker.default_result_ttl)

    worker.connection.transaction(write, job.key)


def _read(job: RQJob) -> Job | None:
    try:
        return jobs.get(UUID(job.id))
    except (ValueError, JobNotFound, StoreUnavailable):
        return None
