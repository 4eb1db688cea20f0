"""/jobs: create a job, show a job and its attempts."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, url_for

from jobsvc import jobs
from jobsvc.api import prefer_wait
from jobsvc.api.auth import needs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.etag import polled
from jobsvc.api.requests import JobRequest
from jobsvc.api.responses import AttemptsReply, JobIdReply
from jobsvc.api.submit import Accepted, accept
from jobsvc.api.validation import body, no_query, read_id
from jobsvc.jobs import Submitted
from jobsvc.jobs.serialize import JobShown, dump_attempts

blueprint = Blueprint("jobs", __name__)
blueprint.before_request(no_query)


@blueprint.post("/jobs")
@needs("write")
@describe(
    {
        202: Reply("Stored; it will be run.", JobIdReply, ("Location", "Idempotency-Replayed", "Preference-Applied")),
        200: Reply(
            "The whole job, which ended within the wait; or the id of the unfinished one that has the uniqueKey.",
            JobShown | JobIdReply,
            ("Location", "Idempotency-Replayed", "Preference-Applied"),
        ),
    },
    takes=JobRequest,
    asks=("Idempotency-Key", "Prefer"),
    errors=(409,),
)
@prefer_wait.or_end
def create() -> Accepted:
    """Store a job and answer 202; what happens to it then depends on no request. 200 for one whose key is taken."""
    reply, status, headers = accept([body(JobRequest).resolve()], _tell)
    return reply, status, {**headers, "Location": url_for("jobs.show", job_id=reply["jobId"])}


def _tell(submitted: Sequence[Submitted]) -> tuple[int, dict[str, Any]]:
    [job] = submitted
    return 202 if job.dispatch else 200, {"jobId": str(job.job_id)}


@blueprint.get("/jobs/<uuid:job_id>")
@describe(
    {200: Reply("The job.", JobShown, ("ETag", "Retry-After")), 304: Reply("It is as it was.", headers=("ETag",))},
    asks=("If-Match", "If-None-Match"),
    errors=(404, 412),
)
def show(job_id: UUID) -> Response:
    """Show a job."""
    return polled(prefer_wait.get(job_id))


@blueprint.get("/jobs/<job_id>/attempts")
@describe({200: Reply("The attempts, the first one first.", AttemptsReply)}, errors=(404,))
def attempts(job_id: str) -> AttemptsReply:
    """Show a job's attempts."""
    return {"attempts": dump_attempts(*jobs.history(read_id(job_id)))}
