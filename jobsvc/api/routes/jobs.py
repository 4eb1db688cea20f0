"""/jobs: take one, show one."""

from typing import Any

from flask import Blueprint, current_app, url_for

from jobsvc import jobs
from jobsvc.api import waiting
from jobsvc.api.auth import needs
from jobsvc.api.parsing import body, no_query, read_id
from jobsvc.api.schemas import JobRequest
from jobsvc.relay import Relay
from jobsvc.wire import dump_attempts, dump_job

blueprint = Blueprint("jobs", __name__)
blueprint.before_request(no_query)


@blueprint.post("/jobs")
@needs("write")
@waiting.or_end
def create() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Store a job and answer 202; what happens to it then depends on no request. 200 for one whose key is taken."""
    [job] = jobs.submit([body(JobRequest).resolve()])
    if job.dispatch:
        relay: Relay = current_app.extensions["relay"]
        relay.wake([job.dispatch])
    status = 202 if job.dispatch else 200
    return {"jobId": str(job.job_id)}, status, {"Location": url_for("jobs.show", job_id=job.job_id)}


@blueprint.get("/jobs/<job_id>")
def show(job_id: str) -> dict[str, Any]:
    """Show a job."""
    return dump_job(waiting.get(read_id(job_id)))


@blueprint.get("/jobs/<job_id>/attempts")
def attempts(job_id: str) -> dict[str, Any]:
    """Show a job's attempts."""
    return {"attempts": dump_attempts(*jobs.history(read_id(job_id)))}
