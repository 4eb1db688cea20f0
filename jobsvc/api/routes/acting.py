"""Cancel, retry and delete jobs on request: one, or all that match a filter."""

from uuid import UUID

from flask import Blueprint

from jobsvc import jobs
from jobsvc.api.auth import needs
from jobsvc.api.conditions import expected_versions
from jobsvc.api.describing import Reply, describe
from jobsvc.api.queries import SomeJobsQuery
from jobsvc.api.responses import CountReply
from jobsvc.api.showing import dump_job_for_caller
from jobsvc.api.submit import relay
from jobsvc.api.validation import query, read_id
from jobsvc.dispatch.duties import Duty
from jobsvc.jobs.serialize import JobShown
from jobsvc.states import Status

blueprint = Blueprint("acting", __name__)


@blueprint.post("/jobs/<job_id>/cancel")
@needs("write")
@describe(
    {
        200: Reply("The job, now cancelled.", JobShown),
        202: Reply("The running job; its attempt will be stopped within seconds.", JobShown),
    },
    asks=("If-Match",),
    errors=(404, 409, 412),
)
def cancel(job_id: str) -> tuple[JobShown, int]:
    """Cancel a job: at once if it waits; if it runs, its attempt is stopped within seconds."""
    job = jobs.cancel(read_id(job_id), expected_versions())
    if job.status == Status.CANCELLED:
        relay().withdraw([job.id])
        relay().notify(Duty.DUE)
    return dump_job_for_caller(job), 200 if job.status == Status.CANCELLED else 202


@blueprint.post("/jobs/<job_id>/retry")
@needs("write")
@describe({200: Reply("The job, now waiting.", JobShown)}, asks=("If-Match",), errors=(404, 409, 412))
def retry(job_id: str) -> JobShown:
    """Retry a failed or cancelled job at once."""
    job, dispatch = jobs.retry(read_id(job_id), expected_versions())
    relay().dispatch([dispatch])
    return dump_job_for_caller(job)


@blueprint.delete("/jobs/<uuid:job_id>")
@needs("admin")
@describe({204: Reply("The job was deleted.")}, asks=("If-Match",), errors=(404, 409, 412))
def delete(job_id: UUID) -> tuple[str, int]:
    """Delete a finished job and its attempts."""
    jobs.remove(job_id, expected_versions())
    relay().withdraw([job_id])
    return "", 204


@blueprint.post("/jobs/cancel")
@needs("admin")
@describe({200: Reply("The number of jobs cancelled, or to be stopped.", CountReply)}, query=SomeJobsQuery)
def cancel_all() -> CountReply:
    """Cancel all jobs that match a filter of at least one query parameter."""
    count = 0
    for batch in jobs.cancel_all(query(SomeJobsQuery).filter()):
        count += len(batch)
        relay().withdraw(job_id for job_id, status in batch.items() if status == Status.CANCELLED)
    relay().notify(Duty.DUE)
    return {"count": count}


@blueprint.post("/jobs/retry")
@needs("admin")
@describe({200: Reply("The number of jobs retried.", CountReply)}, query=SomeJobsQuery)
def retry_all() -> CountReply:
    """Retry all failed and cancelled jobs that match a filter of at least one query parameter."""
    count = 0
    for batch in jobs.retry_all(query(SomeJobsQuery).filter()):
        count += len(batch)
        relay().dispatch(batch)
    return {"count": count}
