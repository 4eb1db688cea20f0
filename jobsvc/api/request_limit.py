"""The gate: how many requests are worked on at once, where a server has more threads than that for those that wait."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import request

_KEY = "jobsvc.gate"


class RequestLimit:
    """WSGI middleware: lets so many requests in at once, the others stand in line.

    A response that is made while it is sent, such as a stream, is made outside.
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
    """Step outside with the current request while it only waits, so that another one may be worked on."""
    inside: threading.BoundedSemaphore | None = request.environ.get(_KEY)
    if inside is None:
        yield
        return
    inside.release()
    try:
        yield
    finally:
        inside.acquire()
