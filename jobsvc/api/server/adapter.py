"""The adapter: answers granian's RSGI requests with a WSGI application."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException, RequestTimeout, ServiceUnavailable

from jobsvc import jobs
from jobsvc.api.clients import CLIENT, client_address
from jobsvc.api.problems import RETRY_AFTER_SECONDS
from jobsvc.api.request_limit import RequestLimit
from jobsvc.api.server import bodies, plain
from jobsvc.api.server.bodies import Body, Overdue
from jobsvc.api.server.budget import Budget
from jobsvc.api.server.connection import LONGEST_SECONDS, Connection
from jobsvc.api.server.environ import add_body, environ_of
from jobsvc.api.server.grouping import Groups
from jobsvc.api.server.threads import Answer, Started, Threads, call, send_piece
from jobsvc.api.submit import accept_jobs
from jobsvc.config import settings
from jobsvc.jobs import NewJob, Submitted

READINESS_THREADS = 4
"""Maximum number of simultaneous /readyz requests, which query Postgres and Redis in threads of their own."""

LARGE_BYTES = 256 * 1024
"""Responses of this size or more count against ANSWERS_BYTES until the client has read them."""

ANSWERS_BYTES = 256 * 1024 * 1024
"""Budget for large responses not read yet: granian keeps a response in memory until it is read."""


class Adapter:
    """Answers the requests of one granian worker on its event loop, with threads for calls that may block."""

    def __init__(self, app: Flask, threads: int, waiters: int) -> None:
        self._app = app
        self._limited = RequestLimit(app.wsgi_app, threads)
        self._size = threads + waiters
        self._limit = settings().JOBSVC_MAX_BODY_BYTES
        self._bodies = Budget(bodies.BUDGET_BYTES + bodies.LARGEST_BODIES * self._limit)
        self._answers = Budget(ANSWERS_BYTES)
        self._overdue = Overdue()
        self._tasks: set[asyncio.Task[None]] = set()
        self.at_work = 0
        """Number of requests that are not answered yet."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start on the event loop that will serve the requests."""
        self._loop = loop
        self._threads = Threads(self._size, "request", loop)
        self._readiness = Threads(READINESS_THREADS, "readiness", loop)
        self._groups = Groups(self._store, loop)
        self.start(self._overdue.run())

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the event loop until it ends."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End all waits on behalf of clients: the process is about to stop."""
        self._app.extensions["job_watcher"].close()
        self._overdue.close()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer a request."""
        self.at_work += 1
        try:
            await self._serve(environ_of(scope), protocol)
        finally:
            self.at_work -= 1

    async def _serve(self, environ: dict[str, Any], protocol: Any) -> None:
        if environ["PATH_INFO"] == "/healthz":  # must not wait, not even for its body
            add_body(environ, b"")
            _send(protocol, call(self._app.wsgi_app, environ, protocol))
            return
        is_plain = plain.is_plain(environ)
        address = client_address(environ)
        body = Body(protocol, address, _length_of(environ), self._bodies, self._overdue)
        try:
            raw = await body.read(self._limit)
        except HTTPException as error:
            body.release()
            _send(protocol, self._refuse(environ, error))
            if error.code != RequestTimeout.code:
                await body.linger()
            return
        job = plain.parse(raw) if is_plain else None
        try:
            if job is not None:
                await self._answer_plain(job, environ, protocol)
            else:
                await self._answer(environ, raw, protocol, address)
        finally:
            body.release()

    async def _answer_plain(self, job: NewJob, environ: dict[str, Any], protocol: Any) -> None:
        try:
            submitted = await self._groups.submit(job)
        except Exception as error:
            _send(protocol, self._error_response(environ, error))
        else:
            _send(protocol, plain.reply(submitted))

    def _store(self, group: Sequence[NewJob]) -> list[Submitted | Exception]:
        return accept_jobs(group, jobs.submit_each, self._app.extensions["relay"])

    async def _answer(self, environ: dict[str, Any], raw: bytes, protocol: Any, address: str) -> None:
        add_body(environ, raw)
        del raw
        connection = environ[CLIENT] = Connection(address, protocol, self._loop, self._overdue)
        try:
            if environ["PATH_INFO"] == "/readyz":
                answer = await self._readiness.call(self._app.wsgi_app, environ, protocol)
            else:
                answer = await self._threads.call(self._limited, environ, protocol)
        finally:
            connection.close()
        size = len(answer[2]) if answer else 0
        if answer is None or size < LARGE_BYTES:
            _send(protocol, answer)
        elif self._answers.take(address, size):
            try:
                _send_as_stream(protocol, *answer)
                del answer  # granian has a copy of the body
                await connection.wait_for_disconnect(time.monotonic() + LONGEST_SECONDS)
            finally:
                self._answers.give_back(address, size)
        else:
            detail = "Large responses that clients have not read yet use all memory allowed for them; try again soon."
            _send(protocol, self._refuse(environ, ServiceUnavailable(detail, retry_after=RETRY_AFTER_SECONDS)))

    def _refuse(self, environ: dict[str, Any], error: HTTPException) -> Answer:
        """Return the response to a request that the application doesn't get; it closes the connection."""
        status, headers, body = self._error_response(environ, error)
        return status, [*headers, _CLOSE], body

    def _error_response(self, environ: dict[str, Any], error: Exception) -> Answer:
        """Return the application's response to this error."""
        add_body(environ, b"")
        started = Started()
        with self._app.request_context(environ):
            response = self._app.make_response(self._app.handle_user_exception(error))
            if environ["PATH_INFO"] == "/jobs":
                response.vary.add("Prefer")
            body = b"".join(self._app.process_response(response)(environ, started))
        return started.status, started.headers, body


_CLOSE = ("Connection", "close")


def _length_of(environ: dict[str, Any]) -> int | None:
    """Return the announced length of the body, None for a chunked one."""
    return None if "HTTP_TRANSFER_ENCODING" in environ else int(environ.get("CONTENT_LENGTH", 0))


def _send_as_stream(protocol: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """Send this response as a stream of one piece: granian reports only the end of a stream."""
    send_piece(protocol.response_stream(status, [*headers, _CLOSE]), body)


def _send(protocol: Any, answer: Answer | None) -> None:
    """Send this response; None stands for one that has been sent."""
    if answer is None:
        return
    status, headers, body = answer
    if body:
        protocol.response_bytes(status, headers, body)
    else:
        protocol.response_empty(status, headers)
