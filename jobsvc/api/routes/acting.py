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
from jobsvc.api.validation import no_body, no_query, query, read_id
from jobsvc.dispatch.duties import Duty
from jobsvc.jobs.serialize import JobShown
from jobsvc.states import Status

blueprint = Blueprint("acting", __name__)
blueprint.before_request(no_body)


@blueprint.post("/jobs/<job_id>/cancel")
@needs("write")
@describe(
    {200: Reply("It waited, and won't run.", JobShown), 202: Reply("It runs, and was told to stop.", JobShown)},
    asks=("If-Match",),
    errors=(404, 409, 412),
)
def cancel(job_id: str) -> tuple[JobShown, int]:
    """Call a job off: 200 if it waited, 202 if its running attempt was told to stop."""
    no_query()
    job = jobs.cancel(read_id(job_id), expected_versions())
    if job.status == Status.CANCELLED:
        relay().withdraw([job.id])
        relay().notify(Duty.DUE)
    return dump_job_for_caller(job), 200 if job.status == Status.CANCELLED else 202


@blueprint.post("/jobs/<job_id>/retry")
@needs("write")
@describe({200: Reply("It waits to be run again.", JobShown)}, asks=("If-Match",), errors=(404, 409, 412))
def retry(job_id: str) -> JobShown:
    """Have a job that failed or was cancelled tried again, at once."""
    no_query()
    job, dispatch = jobs.retry(read_id(job_id), expected_versions())
    relay().dispatch([dispatch])
    return dump_job_for_caller(job)


@blueprint.delete("/jobs/<uuid:job_id>")
@needs("admin")
@describe({204: Reply("It is gone.")}, asks=("If-Match",), errors=(404, 409, 412))
def delete(job_id: UUID) -> tuple[str, int]:
    """Remove a job that has ended, and its attempts."""
    no_query()
    jobs.remove(job_id, expected_versions())
    relay().withdraw([job_id])
    return "", 204


@blueprint.post("/jobs/cancel")
@needs("admin")
@describe({200: Reply("How many.", CountReply)}, query=SomeJobsQuery)
def cancel_all() -> CountReply:
    """Call off all jobs that are meant; says how many were, or were told to stop."""
    count = 0
    for batch in jobs.cancel_all(query(SomeJobsQuery).filter()):
        count += len(batch)
        relay().withdraw(job_id for job_id, status in batch.items() if status == Status.CANCELLED)
    relay().notify(Duty.DUE)
    return {"count": count}


@blueprint.post("/jobs/retry")
@needs("admin")
@describe({200: Reply("How many.", CountReply)}, query=SomeJobsQuery)
def retry_all() -> CountReply:
    """Have all jobs that are meant tried again, at once; says how many are."""
    count = 0
    for batch in jobs.retry_all(query(SomeJobsQuery).filter()):
        count += len(batch)
        relay().dispatch(batch)
    return {"count": count}
