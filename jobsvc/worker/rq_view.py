"""Corrects the state that RQ shows of a job, after an execution whose result does not count.

RQ writes the end of every execution to its job, as if there were only one. After a duplicate dispatch, a lost lease or
a returned job it would show the job as finished without a result even if another attempt decides otherwise.
"""

from collections.abc import Collection
from uuid import UUID

from redis import Redis
from redis.client import Pipeline
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.worker import BaseWorker

from jobsvc import jobs
from jobsvc.db.models import Job
from jobsvc.errors import JobNotFound, StoreUnavailable
from jobsvc.states import Status

_SHOWN = {
    Status.PROCESSING: JobStatus.STARTED,
    Status.COMPLETED: JobStatus.FINISHED,
    Status.FAILED: JobStatus.FAILED,
    Status.CANCELLED: JobStatus.CANCELED,
}


def is_running_elsewhere(worker: BaseWorker, job: RQJob) -> bool:
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


def step_aside(worker: BaseWorker, job: RQJob, execution: Execution | None) -> None:
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
