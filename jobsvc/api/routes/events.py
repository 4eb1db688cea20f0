"""/jobs/:id/events: a job's changes and log lines as Server-Sent Events."""

import json
import random
import re
import time
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

from flask import Blueprint, Response, current_app, request
from pydantic import BeforeValidator

from jobsvc import jobs
from jobsvc.api.clients import client_of
from jobsvc.api.job_watcher import JobWatcher, Subscription
from jobsvc.api.operation import Operation, Reply
from jobsvc.api.problems import RETRY_AFTER_SECONDS, problem
from jobsvc.api.validation import Query, query
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import START, Position, Snapshot
from jobsvc.jobs.serialize import dump_line, dump_snapshot

blueprint = Blueprint("events", __name__)

HEARTBEAT_SECONDS = 15.0
"""Maximum silence of a stream, so that proxies keep it open and a disconnected client is noticed."""

OUTAGE_SECONDS = 1.0
"""Pause before the next try when Postgres is unavailable."""

_HEARTBEAT = ":\n\n"

_STREAM = "text/event-stream"

_ID = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18})\.([0-9]{1,18}))?")


def _read_flag(value: Any) -> Any:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


class EventsQuery(Query):
    """The query parameters of GET /jobs/:id/events."""

    logs: Annotated[bool, BeforeValidator(_read_flag)] = False


@blueprint.get("/jobs/<uuid:job_id>/events")
@Operation(
    "read",
    {
        200: Reply(
            "A stream of events: `status` and `progress`, with `data`: {id, status, attempts, progress, error}; with "
            "`logs=true` also `log`, with `data`: {attempt, time, level, message}. "
            "If there are too many streams, or Postgres is unavailable, a client with `text/event-stream` in its "
            "Accept header gets an empty stream with a `retry` time, so that an EventSource reconnects.",
            _STREAM,
        ),
        204: Reply("The job has ended, and the client has received its last event."),
    },
    query=EventsQuery,
    asks=("Last-Event-ID",),
    errors=(404, 501),
)
def follow_job(job_id: UUID) -> Response:
    """Follow a job: one event now and one for each change, until it has ended.

    With Last-Event-ID only newer events are sent. With `logs=true` each stored log line is an event as well: in
    order, each once, and all lines of an attempt before the event of its end.
    """
    with_lines = query(EventsQuery).logs
    try:
        now = Snapshot.of(jobs.get(job_id))
    except StoreUnavailable:
        if (empty := _come_back()) is not None:
            return empty
        raise
    seen, position = _last_seen(now)
    if now.has_ended and seen == now.version:
        return Response(status=204)  # makes an EventSource stop reconnecting
    watch = None
    if not now.has_ended:
        watcher: JobWatcher = current_app.extensions["job_watcher"]
        if not request.is_multithread:
            return _no_threads(now.job_id)
        watch = watcher.watch(now.job_id, now.version, client_of(request.environ))
        if watch is None:
            return _too_many()
        watch.wants_lines = with_lines
    stream = _StreamWithLines(watch, now, seen, position).events() if with_lines else _stream(watch, now, seen)
    response = _respond(stream)
    if watch:
        response.call_on_close(watch.close)
    return response


def _last_seen(now: Snapshot) -> tuple[int, Position]:
    """Return the version of the job and the position of the log line that the client has seen last.

    Returns -1 and START without a Last-Event-ID, and for one that we can't have sent.
    """
    found = _ID.fullmatch(request.headers.get("Last-Event-ID", ""))
    if found is None:
        return -1, START
    version, fence, line = (int(number or 0) for number in found.groups())
    is_possible = version <= now.version and fence <= now.fence and (fence > 0 or line == 0)
    if is_possible and line > 0:
        is_possible = line <= (jobs.last_line(now.job_id, fence) or line)
    return (version, Position(fence, line)) if is_possible else (-1, START)


def _no_threads(job_id: UUID) -> Response:
    """Return a 501 without Retry-After: a stream would always block all other requests of this process."""
    detail = (
        "This server runs without threads, and a stream would hold up all other requests. Start it with threads "
        f"(gunicorn --threads 32, uwsgi --threads 16, flask run --with-threads), or poll /jobs/{job_id}."
    )
    return problem(501, "Streams need a server with threads", detail)


def _come_back() -> Response | None:
    """Return an empty stream for an EventSource, which reconnects then, but not after an error. Else None."""
    if any(kind.split(";")[0].strip().lower() == _STREAM for kind in request.headers.get("Accept", "").split(",")):
        # Random, so that not all of them reconnect at once.
        pause = random.randint(1000 * RETRY_AFTER_SECONDS, 2000 * RETRY_AFTER_SECONDS)  # noqa: S311
        return _respond(iter([f"retry: {pause}\n\n"]))
    return None


def _too_many() -> Response:
    if (empty := _come_back()) is not None:
        return empty
    detail = "The service has reached its limit of clients that follow jobs or wait for them; try again soon."
    return problem(503, "Too many streams", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def _respond(stream: Iterator[str]) -> Response:
    # X-Accel-Buffering: nginx must not buffer the events.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(stream, mimetype=_STREAM, headers=headers)


def _stream(watch: Subscription | None, last: Snapshot, seen: int) -> Iterator[str]:
    yield _event("status", last.version, dump_snapshot(last)) if last.version > seen else _HEARTBEAT
    while watch and not last.has_ended and not watch.is_over:
        latest = watch.next(HEARTBEAT_SECONDS)
        if latest is None:
            yield _HEARTBEAT
            continue
        yield _event(_kind(last, latest), latest.version, dump_snapshot(latest))
        last = latest


class _StreamWithLines:
    """A stream of changes and log lines: the lines of an attempt come before the change that ends it.

    watch: None for a job that has ended.
    """

    def __init__(self, watch: Subscription | None, now: Snapshot, seen: int, position: Position) -> None:
        self._watch, self._now = watch, now
        # Lines sent before the first change get a version below that change's.
        self._seen = seen if seen >= 0 else max(now.version - 1, 0)
        self._is_new = now.version > seen
        self._position = position
        self._is_over = False

    def events(self) -> Iterator[str]:
        """Yield the events of the stream."""
        yield _HEARTBEAT
        last: Snapshot | None = None
        latest: Snapshot | None = self._now
        while not self._is_over:
            if latest:
                yield from self._lines(latest.last_ended_fence)
                if self._is_over:
                    return
                if self._is_new:
                    self._seen = latest.version
                    yield self._event(_kind(last, latest), dump_snapshot(latest))
                last, self._is_new = latest, True
                if latest.has_ended:
                    return
            assert last is not None
            assert self._watch is not None
            before = self._position
            yield from self._lines(last.fence)
            if latest is None and self._position == before:
                yield _HEARTBEAT
            latest = self._watch.next(HEARTBEAT_SECONDS)
            self._is_over = latest is None and self._watch.is_over

    def _lines(self, upto_fence: int) -> Iterator[str]:
        while not self._is_over:
            try:
                for one in jobs.lines_after(self._now.job_id, self._position, upto_fence):
                    self._position = one.position
                    yield self._event("log", dump_line(one.attempt, one.line))
                return
            except StoreUnavailable:
                # These lines must precede the next change. If the watch is over, the client has to reconnect.
                self._is_over = self._watch is None or self._watch.is_over
                yield _HEARTBEAT
                time.sleep(OUTAGE_SECONDS)

    def _event(self, kind: str, data: dict[str, Any]) -> str:
        return _event(kind, f"{self._seen}.{self._position.fence}.{self._position.line}", data)


def _kind(last: Snapshot | None, latest: Snapshot) -> str:
    is_same_start = last is not None and (latest.status, latest.attempts) == (last.status, last.attempts)
    return "progress" if is_same_start else "status"


def _event(kind: str, id_: int | str, data: dict[str, Any]) -> str:
    return f"event: {kind}\nid: {id_}\ndata: {json.dumps(data)}\n\n"
