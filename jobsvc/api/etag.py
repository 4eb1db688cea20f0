"""Conditional requests: a job with its ETag, 304 while it is unchanged, and the versions that If-Match accepts."""

import math
import re
from datetime import datetime

from flask import Response, jsonify, request

from jobsvc.api.responses import dump_job_for_caller, sees_secrets
from jobsvc.db.models import Job
from jobsvc.jobs import Versions, check_version, current_time
from jobsvc.masking import MASKED_TYPES
from jobsvc.states import WAITING, Status

LONGEST_RETRY_AFTER = 60
"""Maximum Retry-After in seconds: a job that is due much later may be cancelled long before."""

_TAG = re.compile(r'(W/)?"([!#-~\x80-\xff]*)"')
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t,]*|$)")
_VERSION = re.compile("0|[1-9][0-9]{0,17}")


def polled(job: Job) -> Response:
    """Return the job as JSON, or a 304 if If-None-Match (RFC 9110 §13.1.2) names its version.

    Raises VersionMismatch if If-Match names other versions.
    """
    suffix = _tag_suffix(job)
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


def _tag_suffix(job: Job) -> str:
    """Return the text after the version in the job's ETag: it keeps masked and full responses apart in caches."""
    return "-masked" if job.type in MASKED_TYPES and not sees_secrets() else ""


def expected_versions(suffix: str = "") -> Versions:
    """Return the versions that If-Match accepts; None (any version) without the header and for `*`.

    suffix: the text after the version in the caller's ETags.
    Weak tags match nothing (strong comparison, RFC 9110 §8.8.3.2), and neither does a malformed header.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip(" \t") == "*":
        return None
    texts = [tag.removesuffix(suffix) for tag in _strong_tags(header.strip(" \t,")) if tag.endswith(suffix)]
    return frozenset(int(text) for text in texts if _VERSION.fullmatch(text))


def _strong_tags(header: str) -> list[str]:
    tags: list[str] = []
    at = 0
    while at < len(header):
        tag = _TAG.match(header, at)
        separator = _SEPARATOR.match(header, tag.end()) if tag else None
        if tag is None or separator is None:
            return []
        if tag[1] is None:
            tags.append(tag[2])
        at = separator.end()
    return tags
