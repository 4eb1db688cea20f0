"""A job for clients that ask again and again: its ETag, 304 while nothing changed, and when to ask again."""

import math
from datetime import UTC, datetime

from flask import Response, abort, jsonify, request

from jobsvc.api.showing import dump_job_for_caller, tag_suffix
from jobsvc.models import Job
from jobsvc.states import WAITING, Status

LONGEST_RETRY_AFTER = 60
"""Seconds; a job that is due much later may be cancelled long before."""


def polled(job: Job) -> Response:
    """The job as JSON, or 304 without it when If-None-Match (RFC 9110 §13.1.2) names its version.

    Aborts with 412 when there is an If-Match, and it doesn't.
    """
    response = jsonify(dump_job_for_caller(job))
    response.set_etag(f"{job.version}{tag_suffix(job)}")
    if (seconds := retry_after(job, datetime.now(UTC))) is not None:
        response.headers["Retry-After"] = str(seconds)
    response.make_conditional(request)
    if response.status_code == 412:
        abort(412)
    return response


def retry_after(job: Job, now: datetime) -> int | None:
    """In how many whole seconds it is worth asking again, 1 or more; None when the job has ended."""
    if job.status in WAITING:
        return min(max(math.ceil((job.due_at - now).total_seconds()), 1), LONGEST_RETRY_AFTER)
    return 1 if job.status == Status.PROCESSING else None
