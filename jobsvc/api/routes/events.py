"""/jobs/:id/events: a job's changes as Server-Sent Events, as they come."""

import json
import re
from collections.abc import Iterator
from uuid import UUID

from flask import Blueprint, Response, current_app, request

from jobsvc import jobs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.hub import Hub, Watch
from jobsvc.api.parsing import no_query
from jobsvc.api.problems import RETRY_AFTER_SECONDS, problem
from jobsvc.jobs import Snapshot
from jobsvc.wire import dump_snapshot

blueprint = Blueprint("events", __name__)
blueprint.before_request(no_query)

HEARTBEAT_SECONDS = 15.0
"""A stream is silent for no longer, so that proxies keep it, and a client that has gone is noticed."""

_HEARTBEAT = ":\n\n"


@blueprint.get("/jobs/<uuid:job_id>/events")
@describe(
    {
        200: Reply("Events, each with `id` and `data`: {id, status, attempts, progress, error}.", "text/event-stream"),
        204: Reply("The job has ended, and the client has seen that."),
    },
    asks=("Last-Event-ID",),
    errors=(404,),
)
def events(job_id: UUID) -> Response:
    """One event now and one for each change, until the job has ended; with Last-Event-ID only what is newer."""
    now = Snapshot.of(jobs.get(job_id))
    seen = _last_seen(now)
    if now.has_ended:
        # 204 tells an EventSource to come back no more.
        return Response(status=204) if seen == now.version else _respond(iter([_event("status", now)]))
    hub: Hub = current_app.extensions["hub"]
    watch = hub.watch(now.job_id, now.version) if request.is_multithread else None
    if watch is None:
        detail = "As many clients follow jobs or wait for them as the service can hold; try again soon."
        return problem(503, "Too many streams", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
    response = _respond(_stream(watch, now, seen))
    response.call_on_close(watch.close)
    return response


def _last_seen(now: Snapshot) -> int:
    """The version that the client has seen; -1 without a Last-Event-ID, or with one that we can't have sent."""
    sent = request.headers.get("Last-Event-ID", "")
    seen = int(sent) if re.fullmatch(r"[0-9]{1,18}", sent) else -1
    return seen if seen <= now.version else -1


def _respond(stream: Iterator[str]) -> Response:
    # The last header tells nginx not to gather the events.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(stream, mimetype="text/event-stream", headers=headers)


def _stream(watch: Watch, last: Snapshot, seen: int) -> Iterator[str]:
    yield _event("status", last) if last.version > seen else _HEARTBEAT
    while not last.has_ended and not watch.is_over:
        latest = watch.next(HEARTBEAT_SECONDS)
        if latest is None:
            yield _HEARTBEAT
            continue
        is_same_start = (latest.status, latest.attempts) == (last.status, last.attempts)
        yield _event("progress" if is_same_start else "status", latest)
        last = latest


def _event(name: str, snapshot: Snapshot) -> str:
    return f"event: {name}\nid: {snapshot.version}\ndata: {json.dumps(dump_snapshot(snapshot))}\n\n"
