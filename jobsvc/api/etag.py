"""A job for polling clients: its ETag, 304 while unchanged, and Retry-After."""

import math
from datetime import datetime

from flask import Response, jsonify, request

from jobsvc.api.conditions import expected_versions
from jobsvc.api.showing import dump_job_for_caller, tag_suffix
from jobsvc.db.models import Job
from jobsvc.jobs import check_version, current_time
from jobsvc.states import WAITING, Status

LONGEST_RETRY_AFTER = 60
"""Maximum Retry-After in seconds: a job that is due much later may be cancelled long before."""


def polled(job: Job) -> Response:
    """Return the job as JSON, or a 304 if If-None-Match (RFC 9110 §13.1.2) names its version.

    Raises VersionMismatch if If-Match names other versions.
    """
    suffix = tag_suffix(job)
    check_version(job.version, expected_versions(suffix))
    response = jsonify(dump_job_for_caller(job))
    response.set_etag(f"{job.version}{suffix}")
    if (seconds := retry_after(job, current_time())) is not None:
        response.headers["Retry-After"] = str(seconds)
    # Werkzeug treats the `*` of If-Match as a tag.
    rest = {name: value for name, value in request.environ.items() if name != "HTTP_IF_MATCH"}
    response.make_conditional(rest)
    return response


def retry_after(job: Job, now: datetime) -> int | None:
    """Return the whole seconds (1 or more) until the next poll, None if the job has ended. now: Postgres' time."""
    if job.status in WAITING:
        return min(max(math.ceil((job.due_at - now).total_seconds()), 1), LONGEST_RETRY_AFTER)
    return 1 if job.status == Status.PROCESSING else None
