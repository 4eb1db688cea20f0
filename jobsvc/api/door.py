"""The door: plain requests to POST /jobs are answered here, in a seventh of the time that Flask takes.

Plain is one that says nothing but its body. Whatever else there may be to it, and each one that
might be refused, is left to the view; an error of a plain one is told by the same handlers.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import Flask

from jobsvc import strictjson
from jobsvc.api import accepting
from jobsvc.api.auth import surely_may_write
from jobsvc.api.headers import JSON_HEADERS
from jobsvc.api.parsing import read
from jobsvc.api.schemas import JobRequest
from jobsvc.config import settings
from jobsvc.jobs import Submitted

_HAS_MORE_TO_SAY = ("HTTP_PREFER", "HTTP_IDEMPOTENCY_KEY", "HTTP_CONTENT_ENCODING", "HTTP_TRANSFER_ENCODING")


class Door:
    """WSGI middleware around Flask's own."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._flask = app.wsgi_app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer the request, by the view if it is not a plain one."""
        if not _is_plain(environ):
            return self._flask(environ, start_response)
        raw = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if len(raw) != int(environ["CONTENT_LENGTH"]):
            environ["wsgi.input"] = io.BytesIO(raw)
            return self._flask(environ, start_response)
        try:
            submitted = self._accept(raw, environ.get("HTTP_TRACEPARENT"))
        except Exception as error:
            return self._tell(error, environ, start_response)
        body = b'{"jobId":"%s"}\n' % str(submitted.job_id).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Location", f"/jobs/{submitted.job_id}"),
            ("Vary", "Prefer"),
            *JSON_HEADERS,
        ]
        start_response("202 ACCEPTED" if submitted.dispatch else "200 OK", headers)
        return [body]

    def _accept(self, raw: bytes, traceparent: str | None) -> Submitted:
        job = read(JobRequest, strictjson.parse(raw)).resolve()
        [submitted] = accepting.submit([job], traceparent, self._app.extensions["relay"])
        return submitted

    def _tell(self, error: Exception, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._app.request_context(environ):
            response = self._app.process_response(self._app.make_response(self._app.handle_user_exception(error)))
            response.vary.add("Prefer")
            return response(environ, start_response)


def _is_plain(environ: Mapping[str, Any]) -> bool:
    """Whether the request is a POST /jobs with a JSON body that its headers say no more about, from one who may."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ["PATH_INFO"] == "/jobs"
        and environ["REQUEST_METHOD"] == "POST"
        and not environ.get("QUERY_STRING")
        and not environ.get("SCRIPT_NAME")
        and environ.get("CONTENT_TYPE") == "application/json"
        and length.isdecimal()
        and 0 < int(length) <= settings().JOBSVC_MAX_BODY_BYTES
        and not any(name in environ for name in _HAS_MORE_TO_SAY)
        and surely_may_write(environ)
    )
