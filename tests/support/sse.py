"""Event streams as a client sees them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.service import Service

Event = dict[str, Any]
"""`event`, `id`, `data` as JSON; a comment is {}."""


@contextmanager
def follow(
    service: Service, job_id: str, last: str | None = None, query: str = ""
) -> Iterator[tuple[httpx.Response, Iterator[Event]]]:
    """Open a job's stream; its events come one by one, and end with it."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with service.client.stream("GET", f"/jobs/{job_id}/events{query}", headers=headers) as reply:
        yield reply, _events(reply)


def _events(reply: httpx.Response) -> Iterator[Event]:
    fields: Event = {}
    deadline = time.monotonic() + 60  # heartbeats would keep a stream that doesn't end open for ever
    for line in reply.iter_lines():
        assert time.monotonic() < deadline
        if not line:
            yield fields
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            assert name not in fields, "data in one line"
            fields[name] = json.loads(value) if name == "data" else value


def collect(service: Service, job_id: str, last: str | None = None, query: str = "") -> list[Event]:
    """All events of a stream until its end, without the comments."""
    with follow(service, job_id, last, query) as (reply, events):
        assert reply.status_code == 200
        return [event for event in events if event]
