"""Answers plain requests to POST /jobs without Flask, and without a thread of their own.

A request is plain if it has only a JSON body, and its client may certainly post jobs. All others, and those that
might be rejected, go to the view.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jobsvc import handlers, strict_json, tracing
from jobsvc.api.auth import surely_may_write
from jobsvc.api.headers import JSON_HEADERS
from jobsvc.api.requests import DEFAULT_TYPE, JobRequest, plain_job
from jobsvc.api.submit import job_headers, job_reply
from jobsvc.api.validation import check_storable, read_storable
from jobsvc.errors import JobsvcError
from jobsvc.jobs import NewJob, Submitted

MAX_BYTES = 16 * 1024
"""Size of the largest body parsed on the event loop; that takes less than a millisecond."""

_HAS_MORE_TO_SAY = (
    "HTTP_PREFER",
    "HTTP_IDEMPOTENCY_KEY",
    "HTTP_CONTENT_ENCODING",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_TRACEPARENT",
    "HTTP_X_FORWARDED_PREFIX",
)


def is_plain(environ: Mapping[str, Any]) -> bool:
    """Return True for a permitted POST /jobs with a small JSON body, and no header that changes its handling."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ["PATH_INFO"] == "/jobs"
        and environ["REQUEST_METHOD"] == "POST"
        and not environ["QUERY_STRING"]
        and environ.get("CONTENT_TYPE") == "application/json"
        and length.isdecimal()
        and 0 < int(length) <= MAX_BYTES
        and not any(name in environ for name in _HAS_MORE_TO_SAY)
        and surely_may_write(environ)
        and not tracing.is_on()
    )


def parse(body: bytes) -> NewJob | None:
    """Return the job in this body; None if the view must process it (invalid, or not supported here)."""
    try:
        value = strict_json.parse(body)
        if not isinstance(value, dict) or "uniqueKey" in value or not _is_checked_quickly(value.get("type")):
            return None
        job = plain_job(check_storable(value)) or read_storable(JobRequest, value).resolve()
        return None if job.depends_on else job
    except JobsvcError:
        return None


def reply(submitted: Submitted) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return status, headers and body of the response, the same as the view's."""
    status, shown = job_reply([submitted])
    body = b'{"jobId":"%s"}\n' % shown["jobId"].encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        *job_headers(shown["jobId"]).items(),
        *JSON_HEADERS,
    ]
    return status, headers, body


def _is_checked_quickly(type_: Any) -> bool:
    """Return True if payloads of this type are checked without application code, which may take any time."""
    if not isinstance(type_, str | None):
        return False
    handler = handlers.find(DEFAULT_TYPE if type_ is None else type_)
    return handler is not None and _runs_own_code_only(handler.name)


@lru_cache(maxsize=1024)
def _runs_own_code_only(name: str) -> bool:
    handler = handlers.find(name)
    assert handler is not None
    return handler.function.__module__.startswith("jobsvc.handlers.") or _calls_nothing(handler.payload.core_schema)


_CALLS_NOTHING = {
    *("any", "none", "bool", "int", "float", "str", "date", "time", "datetime", "timedelta", "literal", "uuid"),
    *("nullable", "union", "tagged-union", "list", "tuple", "dict", "model", "model-fields", "model-field"),
    *("typed-dict", "typed-dict-field", "definitions", "definition-ref", "default", "url", "decimal"),
}
_CALLS = ("post_init", "custom_init", "root_model", "default_factory", "validator", "function")


def _calls_nothing(schema: Any) -> bool:
    """Return True if no part of this pydantic core schema calls a function to check a value."""
    if isinstance(schema, list | tuple):
        return all(_calls_nothing(one) for one in schema)
    if not isinstance(schema, dict):
        return True
    kind = schema.get("type")
    if any(schema.get(name) for name in _CALLS) or (isinstance(kind, str) and kind not in _CALLS_NOTHING):
        return False
    hidden = ("metadata", "serialization", "config", "expected", "computed_fields")
    return all(_calls_nothing(value) for name, value in schema.items() if name not in hidden)
