"""Webhooks on request: send the webhook of an ended job again."""

from flask import Blueprint, url_for

from jobsvc import jobs
from jobsvc.api.auth import needs
from jobsvc.api.conditions import expected_versions
from jobsvc.api.describing import Reply, describe
from jobsvc.api.responses import JobIdReply
from jobsvc.api.submit import relay
from jobsvc.api.validation import read_id
from jobsvc.dispatch.duties import Duty

blueprint = Blueprint("webhooks", __name__)


@blueprint.post("/jobs/<job_id>/webhook")
@needs("write")
@describe(
    {202: Reply("The job that will send the webhook.", JobIdReply, ("Location",))},
    asks=("If-Match",),
    errors=(404, 409, 412),
)
def announce_again(job_id: str) -> tuple[dict[str, str], int, dict[str, str]]:
    """Send the webhook of a finished job again, by a new job."""
    delivery = str(jobs.announce_again(read_id(job_id), expected_versions()))
    relay().notify(Duty.DUE)
    return {"jobId": delivery}, 202, {"Location": url_for("jobs.show", job_id=delivery)}
