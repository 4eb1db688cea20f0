"""/jobs: take one, show one."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, url_for

from jobsvc import jobs
from jobsvc.api import waiting
from jobsvc.api.accepting import Accepted, accept
from jobsvc.api.auth import needs
from jobsvc.api.parsing import body, no_query, read_id
from jobsvc.api.polling import polled
from jobsvc.api.schemas import JobRequest
from jobsvc.jobs import Submitted
from jobsvc.wire import dump_attempts

blueprint = Blueprint("jobs", __name__)
blueprint.before_request(no_query)


@blueprint.post("/jobs")
@needs("write")
@waiting.or_end
def create() -> Accepted:
    """Store a job and answer 202; what happens to it then depends on no request. 200 for one whose key is taken."""
    reply, status, headers = accept([body(JobRequest).resolve()], _tell)
    return reply, status, {**headers, "Location": url_for("jobs.show", job_id=reply["jobId"])}


def _tell(submitted: Sequence[Submitted]) -> tuple[int, dict[str, Any]]:
    [job] = submitted
    return 202 if job.dispatch else 200, {"jobId": str(job.job_id)}


@blueprint.get("/jobs/<job_id>")
def show(job_id: str) -> Response:
    """Show a job."""
    return polled(waiting.get(read_id(job_id)))


@blueprint.get("/jobs/<job_id>/attempts")
def attempts(job_id: str) -> dict[str, Any]:
    """Show a job's attempts."""
    return {"attempts": dump_attempts(*jobs.history(read_id(job_id)))}
