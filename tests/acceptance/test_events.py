"""The event stream of a job, seen from outside."""

import json
from collections.abc import Iterator

import pytest

from tests.support.http import refused
from tests.support.service import Service
from tests.support.sse import collect, follow


def test_changes_come_in_order_and_the_last_closes_the_stream(stack: Service) -> None:
    blocker = stack.post(payload={"durationMs": 700})
    job_id = stack.post(payload={"durationMs": 900, "steps": 3, "failAttempts": 1}, retry={"max": 1, "interval": 0.5})
    with follow(stack, job_id) as (reply, stream):
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Accel-Buffering"] == "no"
        events = [event for event in stream if event]
    statuses = [event["data"]["status"] for event in events if event["event"] == "status"]
    assert statuses == ["PENDING", "PROCESSING", "RETRYING", "PROCESSING", "COMPLETED"]
    steps = [
        (event["data"]["attempts"], event["data"]["progress"]["percent"])
        for event in events[:-1]
        if event["event"] == "progress"
    ]
    assert steps == sorted(set(steps))
    assert {attempt for attempt, percent in steps if 33 < percent < 100} == {1, 2}
    ids = [int(event["id"]) for event in events]
    assert ids == sorted(set(ids))
    assert list(events[0]["data"]) == ["id", "status", "attempts", "progress", "error"]
    last, job = events[-1]["data"], stack.job(job_id)
    assert last == {name: job[name] for name in last}
    assert last["error"]["attempt"] == 1
    stack.until(blocker, "COMPLETED")


def test_reconnect_sends_only_newer_changes(stack: Service) -> None:
    job_id = stack.post(payload={"durationMs": 600}, delay=0.7)
    with follow(stack, job_id) as (_, stream):
        first = next(stream)
    assert first["data"]["status"] == "SCHEDULED"
    events = collect(stack, job_id, first["id"])
    assert [event["data"]["status"] for event in events] == ["PROCESSING", "COMPLETED"]
    missed = collect(stack, job_id, first["id"])
    assert missed == events[-1:]
    with follow(stack, job_id, missed[-1]["id"]) as (reply, _):
        assert (reply.status_code, reply.read()) == (204, b"")


@pytest.mark.parametrize("last", [None, "", "x", "-1", "1.0", "999999", "9" * 400, "٣"])
def test_unknown_last_event_id_is_ignored(stack: Service, last: str | None) -> None:
    job_id = stack.post()
    job = stack.until(job_id, "COMPLETED")
    with stack.client.stream(
        "GET", f"/jobs/{job_id}/events", headers={} if last is None else {"Last-Event-ID": last.encode()}
    ) as reply:
        lines = list(reply.iter_lines())
    assert lines[0] == "event: status"
    assert json.loads(lines[2].removeprefix("data: "))["status"] == job["status"]
    assert len(lines) == 4


def test_unknown_last_event_id_hides_no_state_of_an_unfinished_job(api: Service) -> None:
    with follow(api, api.post(delay=600), "999999") as (_, stream):
        assert next(stream)["data"]["status"] == "SCHEDULED"


def test_stream_of_an_unknown_job_is_404(api: Service) -> None:
    refused(api.client.get("/jobs/01a20d9d-383b-755a-b743-f0ceb23ca29d/events"), 404)
    refused(api.client.get("/jobs/nope/events"), 404)
    refused(api.client.get(f"/jobs/{api.post()}/events?since=1"), 422)
    refused(api.client.post(f"/jobs/{api.post()}/events"), 405)


def test_head_request_occupies_no_slot(api: Service) -> None:
    job_id = api.post(delay=600)
    for _ in range(300):
        assert api.client.head(f"/jobs/{job_id}/events").status_code == 200


@pytest.fixture
def lively(clean: None) -> Iterator[Service]:
    service = Service(tune="events.HEARTBEAT_SECONDS = 0.1")
    yield service
    service.close()


def test_idle_stream_sends_heartbeats(lively: Service) -> None:
    job_id = lively.post(delay=600)
    with follow(lively, job_id) as (_, stream):
        first = next(stream)
        assert [next(stream) for _ in range(3)] == [{}, {}, {}]
    with follow(lively, job_id, first["id"]) as (_, stream):
        assert next(stream) == {}
