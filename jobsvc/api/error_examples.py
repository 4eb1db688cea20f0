"""Examples of error responses, for the OpenAPI document."""

from typing import Any

ERRORS: dict[int, dict[str, Any]] = {
    400: {"title": "The body is not valid JSON", "detail": "Expecting value at line 1, column 12", "instance": "/jobs"},
    401: {
        "title": "Unauthorized",
        "detail": "Send a key: Authorization: Bearer …, or X-API-Key: …",
        "instance": "/jobs",
    },
    403: {
        "title": "Forbidden",
        "detail": "This requires a key with the scope write; the given key has read.",
        "instance": "/jobs",
    },
    404: {
        "title": "There is no such job",
        "detail": "no job has the id 01890a5d-ac96-774b-bcce-b302099a8057",
        "instance": "/jobs/01890a5d-ac96-774b-bcce-b302099a8057",
    },
    409: {
        "title": "The job's status doesn't allow this",
        "detail": "the job is COMPLETED",
        "instance": "/jobs/01890a5d-ac96-774b-bcce-b302099a8057/cancel",
    },
    412: {
        "title": "The job has another version than the request expects",
        "detail": "the version is 3",
        "instance": "/jobs/01890a5d-ac96-774b-bcce-b302099a8057",
    },
    413: {
        "title": "Request Entity Too Large",
        "detail": "The data value transmitted exceeds the capacity limit.",
        "instance": "/jobs",
    },
    415: {"title": "Unsupported Media Type", "detail": "Send the body as application/json.", "instance": "/jobs"},
    422: {
        "title": "The request doesn't fit its schema",
        "detail": "/delay: input should be a valid number",
        "instance": "/jobs",
        "errors": [{"pointer": "/delay", "detail": "input should be a valid number"}],
    },
    429: {
        "title": "Too Many Requests",
        "detail": "More than 20 wrong keys came from this address within 60 s.",
        "instance": "/jobs",
    },
    501: {
        "title": "Streams need a server with threads",
        "detail": "This server runs without threads, and a stream would hold up all other requests.",
        "instance": "/jobs/01890a5d-ac96-774b-bcce-b302099a8057/events",
    },
    503: {"title": "The database is unavailable", "detail": "Postgres is unavailable; try again.", "instance": "/jobs"},
}
"""By status: the fields of a problem besides `type` and `status`."""
