"""/jobs: create a job, show a job and its attempts."""

from uuid import UUID

from flask import Blueprint, Response, request

from jobsvc import jobs
from jobsvc.api import prefer_wait
from jobsvc.api.auth import needs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.etag import polled
from jobsvc.api.requests import JobRequest
from jobsvc.api.responses import AttemptsReply, JobIdReply
from jobsvc.api.submit import Accepted, accept, job_headers, job_reply
from jobsvc.api.validation import body, read_id
from jobsvc.jobs.serialize import JobShown, dump_attempts

blueprint = Blueprint("jobs", __name__)


@blueprint.post("/jobs")
@needs("write")
@describe(
    {
        202: Reply("The job was accepted.", JobIdReply, ("Location", "Idempotency-Replayed", "Preference-Applied")),
        200: Reply(
            "With `Prefer: wait`, the job, which ended in time. Else the id of the unfinished job with this uniqueKey.",
            JobShown | JobIdReply,
            ("Location", "Idempotency-Replayed", "Preference-Applied"),
        ),
    },
    takes=JobRequest,
    asks=("Idempotency-Key", "Prefer"),
    errors=(409,),
    examples={
        "A test job": {"type": "TEST_JOB", "payload": {"durationMs": 500}},
        "An HTTP request": {"type": "HTTP_REQUEST", "payload": {"url": "https://example.com/hook", "body": {"id": 7}}},
        "In a minute, with retries": {"type": "TEST_JOB", "delay": 60, "retry": {"max": 2, "interval": [5, 30]}},
    },
)
@prefer_wait.or_end
def create() -> Accepted:
    """Create a job.

    202: the job is stored, and will run. 200: no job was created, since an unfinished one has the uniqueKey; or with
    `Prefer: wait=N` the job ended within N seconds, and is the response.
    """
    reply, status, headers = accept([body(JobRequest).resolve()], job_reply)
    return reply, status, {**headers, **job_headers(reply["jobId"], request.root_path)}


@blueprint.get("/jobs/<uuid:job_id>")
@describe(
    {200: Reply("The job.", JobShown, ("ETag", "Retry-After")), 304: Reply("Not modified.", headers=("ETag",))},
    asks=("If-Match", "If-None-Match"),
    errors=(404, 412),
)
def show(job_id: UUID) -> Response:
    """Get a job."""
    return polled(prefer_wait.get(job_id))


@blueprint.get("/jobs/<job_id>/attempts")
@describe({200: Reply("The attempts of the job, oldest first.", AttemptsReply)}, errors=(404,))
def attempts(job_id: str) -> AttemptsReply:
    """List the attempts of a job."""
    return {"attempts": dump_attempts(*jobs.history(read_id(job_id)))}
