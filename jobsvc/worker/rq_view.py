"""What RQ shows of a job, kept right where an execution ends that has nothing to say of it.

RQ writes the end of every execution into the job that it keeps, as if there were only one: for a
dispatch too many, an attempt that had lost its job, or one that was handed back it would show the
job as finished, without a result, whatever other attempts make of it.
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


def is_anothers(worker: BaseWorker, job: RQJob) -> bool:
    """Whether another worker has started the job since this one did, as far as one can tell."""
    row = _look(job)
    return row is not None and row.worker not in (None, worker.name)


def show_waiting(connection: Redis, job_ids: Collection[str]) -> None:
    """Show these jobs, which were queued and are withheld now, as waiting: as `step_aside`, but of many at once."""
    keys = [RQJob.key_for(job_id) for job_id in job_ids]
    with connection.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hget(key, "status")
        queued = [key for key, status in zip(keys, pipeline.execute(), strict=True) if status == b"queued"]
        for key in queued:
            pipeline.hset(key, "status", JobStatus.SCHEDULED)
        pipeline.execute()


def step_aside(worker: BaseWorker, job: RQJob, execution: Execution | None) -> None:
    """End this execution and nothing else; only what RQ wrote when it began is put right, as Postgres has it.

    Without an execution, that is what RQ wrote when it was queued.
    """

    def write(pipeline: Pipeline) -> None:
        status, name = pipeline.hmget(job.key, "status", "worker_name")
        begun_here = (status, name) == (b"started", worker.name.encode()) if execution else status == b"queued"
        row = _look(job)
        pipeline.multi()
        worker.cleanup_execution(job, pipeline=pipeline, execution=execution)
        if row is not None and begun_here:
            # `scheduled` for all that waits: the relay would not dispatch what is shown as queued already.
            shown = _SHOWN.get(Status(row.status), JobStatus.SCHEDULED)
            pipeline.hset(job.key, mapping={"status": shown, "worker_name": row.worker or ""})
        if row is None or row.finished_at is not None:
            # RQ took the time limit off when the execution began.
            failed = row is not None and row.status == Status.FAILED
            pipeline.expire(job.key, (job.failure_ttl if failed else job.result_ttl) or worker.default_result_ttl)

    worker.connection.transaction(write, job.key)


def _look(job: RQJob) -> Job | None:
    try:
        return jobs.get(UUID(job.id))
    except (ValueError, JobNotFound, StoreUnavailable):
        return None
