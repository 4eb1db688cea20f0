"""/jobs: take one, show one."""

from typing import Any
from uuid import UUID

from flask import Blueprint, Response, current_app, url_for

from jobsvc import jobs
from jobsvc.api.auth import needs
from jobsvc.api.parsing import body, no_query
from jobsvc.api.polling import polled
from jobsvc.api.schemas import JobRequest
from jobsvc.errors import JobNotFound
from jobsvc.relay import Relay
from jobsvc.wire import dump_attempts

blueprint = Blueprint("jobs", __name__)
blueprint.before_request(no_query)


@blueprint.post("/jobs")
@needs("write")
def create() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Store a job and answer 202; what happens to it then depends on no request. 200 for one whose key is taken."""
    [job] = jobs.submit([body(JobRequest).resolve()])
    if job.dispatch:
        relay: Relay = current_app.extensions["relay"]
        relay.wake([job.dispatch])
    status = 202 if job.dispatch else 200
    return {"jobId": str(job.job_id)}, status, {"Location": url_for("jobs.show", job_id=job.job_id)}


@blueprint.get("/jobs/<job_id>")
def show(job_id: str) -> Response:
    """Show a job."""
    return polled(jobs.get(_uuid(job_id)))


@blueprint.get("/jobs/<job_id>/attempts")
def attempts(job_id: str) -> dict[str, Any]:
    """Show a job's attempts."""
    return {"attempts": dump_attempts(*jobs.history(_uuid(job_id)))}


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise JobNotFound(f"{text[:100]!a} is not the id of a job") from None
