"""Limits the number of requests that are processed at once. Waiting clients don't count: they use other threads."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import request

_KEY = "jobsvc.request_limit"


class RequestLimit:
    """WSGI middleware: processes at most `width` requests at once; the others wait for a free slot.

    The limit does not cover a response that is generated while it is sent, such as a stream.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], width: int) -> None:
        self._app = app
        self._inside = threading.BoundedSemaphore(width)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ[_KEY] = self._inside
        with self._inside:
            return self._app(environ, start_response)


@contextmanager
def outside() -> Iterator[None]:
    """Release the current request's slot while it only waits, so that another one can be processed."""
    inside: threading.BoundedSemaphore | None = request.environ.get(_KEY)
    if inside is None:
        yield
        return
    inside.release()
    try:
        yield
    finally:
        inside.acquire()
