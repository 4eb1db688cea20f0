"""Errors as RFC 9457 problem details, for every exception."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from flask import Flask, Response, request
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from werkzeug.exceptions import HTTPException

from jobsvc.errors import (
    InvalidInput,
    JobNotFound,
    JobsvcError,
    KeyInProgress,
    KeyMalformed,
    KeyReused,
    Problem,
    QueueNotFound,
    ScheduleNotFound,
    StoreUnavailable,
    UniqueKeyConflict,
    UniqueKeyTaken,
    UnknownDependencies,
    VersionMismatch,
    WrongState,
)
from jobsvc.strict_json import NotJson

logger = logging.getLogger("jobsvc.api")

RETRY_AFTER_SECONDS = 2

PROBLEM = "application/problem+json"

_STATUS: dict[type[JobsvcError], int] = {
    NotJson: 400,
    KeyMalformed: 400,
    JobNotFound: 404,
    QueueNotFound: 404,
    ScheduleNotFound: 404,
    WrongState: 409,
    UniqueKeyConflict: 409,
    UniqueKeyTaken: 409,
    KeyInProgress: 409,
    VersionMismatch: 412,
    InvalidInput: 422,
    UnknownDependencies: 422,
    KeyReused: 422,
    StoreUnavailable: 503,
}


def problem(
    status: int,
    title: str,
    detail: str,
    errors: Sequence[Problem] | None = None,
    headers: dict[str, str] | None = None,
    job_id: UUID | None = None,
) -> Response:
    """Return a problem+json response; `type` is about:blank, since the status is specific enough (RFC 9457 §4.2.1).

    job_id: the job that the problem is about, if the request doesn't name it.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": f"{request.root_path}{request.path}",
    }
    if job_id is not None:
        body["jobId"] = str(job_id)
    if errors is not None:
        body["errors"] = [error.dump() for error in errors]
    # ASCII, so that a lone surrogate from the request can't break the response.
    response = Response(f"{json.dumps(body, separators=(',', ':'))}\n", status, content_type=PROBLEM)
    response.headers.update(headers or {})
    return response


def _from_domain(error: JobsvcError) -> Response:
    status = _STATUS[type(error)]
    if isinstance(error, InvalidInput):
        return problem(status, error.title, str(error), error.problems)
    if isinstance(error, UniqueKeyConflict):
        return problem(status, error.title, str(error), error.problems or None, job_id=error.holder)
    if status == 503:
        return _unavailable(error, error.title, str(error))
    return problem(status, error.title, str(error))


def _unavailable(error: Exception, title: str, detail: str) -> Response:
    # Each outage of Postgres is already logged once, with its cause.
    level = logging.DEBUG if isinstance(error, StoreUnavailable) and error.is_outage else logging.WARNING
    logger.log(level, "%s %s: 503, %s", request.method, request.path, error)
    return problem(503, title, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def _from_http(error: HTTPException) -> Response:
    status = error.code or 500
    response = error.get_response()
    if status < 400:
        return Response(response.get_data(), status, response.headers)
    kept = {name: value for name, value in response.headers if name in ("Allow", "Retry-After", "WWW-Authenticate")}
    return problem(status, error.name, error.description or error.name, headers=kept)


def _from_redis(error: RedisError) -> Response:
    # Only views of RQ's own state use Redis within a request.
    return _unavailable(
        error, "Redis can't be reached now", "The list of workers is in Redis; jobs are accepted without it."
    )


def _from_bug(error: Exception) -> Response:
    logger.exception("%s %s: 500", request.method, request.path)
    return problem(500, "Internal Server Error", "This is a bug in jobsvc; the log of the service has the cause.")


# Not every RedisError: an error reply of Redis is not an outage, and a retry won't help.
_ANSWERS: dict[type[Exception], Callable[[Any], Response]] = {
    JobsvcError: _from_domain,
    HTTPException: _from_http,
    RedisConnectionError: _from_redis,
    RedisTimeoutError: _from_redis,
    Exception: _from_bug,
}


def answer_error(error: Exception) -> Response:
    """Return the problem for any exception of a view; a redirect that was raised stays one."""
    answer = next(_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS)
    return answer(error)


def init_app(app: Flask) -> None:
    """Register error handlers that answer every error of this app with a problem."""
    for kind, answer in _ANSWERS.items():
        app.register_error_handler(kind, answer)
