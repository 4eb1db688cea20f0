"""WSGI calls in threads: a stream is sent by the thread, any other response is returned to the event loop."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

logger = logging.getLogger("jobsvc.api")

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]
Answer = tuple[int, Headers, bytes]


class Started:
    """`start_response` of PEP 3333, without its `write`."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: Headers = []

    def __call__(self, status: str, headers: Headers, _exc_info: Any = None, /) -> Callable[[bytes], object]:
        self.status = int(status.partition(" ")[0])
        self.headers = headers
        return _no_write


def _no_write(_data: bytes) -> None:
    raise NotImplementedError("only what an application returns is sent")


def call(app: Wsgi, environ: dict[str, Any], protocol: Any) -> Answer | None:
    """Call the application and return its response; None for a stream, which has been sent to its end."""
    started = Started()
    body = app(environ, started)
    try:
        if isinstance(body, list) or environ["REQUEST_METHOD"] == "HEAD" or _is_whole(started):
            return started.status, started.headers, b"".join(body)
        _send_stream(protocol.response_stream(started.status, started.headers), body)
        return None
    finally:
        if close := getattr(body, "close", None):
            close()


def _is_whole(started: Started) -> bool:
    """Return True if the response has no body or a known length, so that it can be sent in one piece."""
    return started.status in (204, 304) or any(name.lower() == "content-length" for name, _ in started.headers)


def _send_stream(transport: Any, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        if piece and not send_piece(transport, piece):
            break


def send_piece(transport: Any, piece: bytes) -> bool:
    """Send a piece of a stream, from any thread: granian only queues it. False if the client has disconnected."""
    try:
        for _ in transport.send_bytes(piece).__await__():
            pass
    except RuntimeError:  # RSGIProtocolClosed
        return False
    return True


class Threads:
    """A thread pool that calls the application, for an event loop."""

    def __init__(self, number: int, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = ThreadPoolExecutor(number, name)
        self._loop = loop

    async def call(self, app: Wsgi, environ: dict[str, Any], protocol: Any) -> Answer | None:
        """Run `call` in a thread."""
        done: asyncio.Future[Answer | None] = self._loop.create_future()
        self._pool.submit(self._call, app, environ, protocol, done)
        return await done

    def _call(self, app: Wsgi, environ: dict[str, Any], protocol: Any, done: "asyncio.Future[Answer | None]") -> None:
        try:
            answer = call(app, environ, protocol)
        except BaseException:
            logger.exception("server: the application raised (%s)", environ["PATH_INFO"])
            answer = (500, [], b"")
        self._loop.call_soon_threadsafe(_set, done, answer)


def _set(done: "asyncio.Future[Answer | None]", answer: Answer | None) -> None:
    if not done.done():
        done.set_result(answer)
