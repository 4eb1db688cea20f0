"""Examples of error responses, for the OpenAPI document."""

from typing import Any

_JOB = "/jobs/01890a5d-ac96-774b-bcce-b302099a8057"

_TEXTS = {
    400: ("The body is not JSON", "Expecting value at line 1, column 12", "/jobs"),
    401: ("Unauthorized", "Send a key: Authorization: Bearer …, or X-API-Key: …", "/jobs"),
    403: ("Forbidden", "This requires a key with the scope write; the given key has read.", "/jobs"),
    404: ("There is no such job", "no job has the id 01890a5d-ac96-774b-bcce-b302099a8057", _JOB),
    409: (
        "The job's status doesn't allow this",
        "the job was COMPLETED; only one that is FAILED or CANCELLED can be retried",
        f"{_JOB}/retry",
    ),
    412: (
        "The job has another version than the request expects",
        "the job has version 3 now, which is not what the request expects",
        _JOB,
    ),
    413: ("Request Entity Too Large", "The data value transmitted exceeds the capacity limit.", "/jobs"),
    415: ("Unsupported Media Type", "Send the body as application/json.", "/jobs"),
    422: ("The request doesn't fit its schema", "/delay: input should be a valid number", "/jobs"),
    429: ("Too Many Requests", "More than 20 wrong keys came from this address within 60 s.", "/jobs"),
    501: (
        "Streams need a server with threads",
        "This server runs without threads, and a stream would hold up all other requests.",
        f"{_JOB}/events",
    ),
    503: ("The database is unavailable", "Postgres can't be reached; try again soon", "/jobs"),
}
"""By status: `title`, `detail` and `instance`."""


def example(status: int) -> dict[str, Any]:
    """Return the body of a response with this status."""
    title, detail, instance = _TEXTS[status]
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail, "instance": instance}
    if status == 422:
        return {**body, "errors": [{"pointer": "/delay", "detail": "input should be a valid number"}]}
    return body
