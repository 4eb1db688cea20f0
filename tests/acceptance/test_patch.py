"""PATCH /jobs/:id: a waiting job is changed, and then starts only as changed."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_access import READ, WRITE, guarded  # noqa: F401  # a fixture
from tests.support.http import bearer, refused
from tests.support.service import Service, eventually

CHANGEABLE = "payload, queue, delay, runAt, retry, timeout, expiresIn, tags"


def patch(service: Service, job_id: str, **body: Any) -> dict[str, Any]:
    """The job after a change that has to be accepted."""
    reply = service.client.patch(f"/jobs/{job_id}", json=body)
    assert reply.status_code == 200, reply.text
    job: dict[str, Any] = reply.json()
    assert job == service.job(job_id) or job["status"] != service.job(job_id)["status"]
    return job


def seconds_until(moment: str) -> float:
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


def test_only_given_fields_are_changed(api: Service) -> None:
    body: dict[str, Any] = {
        "payload": {"result": 1},
        "queue": "high",
        "delay": 600,
        "retry": {"max": 2, "interval": 7},
        "timeout": 9,
        "expiresIn": 999,
        "tags": ["a"],
        "concurrencyKey": str(uuid.uuid4()),
    }
    job_id = api.post(**body)
    before = api.job(job_id)
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"payload": {"result": 2}}, {"payload": {"result": 2}}),
        ({"queue": "low"}, {"queue": "low"}),
        ({"retry": {"max": 3, "interval": [1, 2]}}, {"retryIntervals": [1, 2, 2], "maxAttempts": 4}),
        ({"timeout": 5.5}, {"timeout": 5.5}),
        ({"tags": ["b", "c"]}, {"tags": ["b", "c"]}),
        ({"tags": []}, {"tags": []}),
        ({"payload": {"steps": 3}, "timeout": 7}, {"payload": {"steps": 3}, "timeout": 7}),
    ]
    for given, shown in changes:
        before |= shown
        assert patch(api, job_id, **given) == before


def test_delay_and_expiry_count_from_the_request(api: Service) -> None:
    job_id = api.post(delay=5, expiresIn=6)
    job = patch(api, job_id, delay=600, expiresIn=900)
    assert 590 < seconds_until(job["runAt"]) <= 600
    assert job["nextAttemptAt"] == job["runAt"]
    assert 890 < seconds_until(job["expiresAt"]) <= 900


def test_status_follows_the_new_time(api: Service) -> None:
    api.client.post("/queues/low/pause")
    try:
        job_id = api.post(queue="low")
        assert patch(api, job_id, delay=60)["status"] == "SCHEDULED"
        now = patch(api, job_id, delay=None)
        assert (now["status"], now["runAt"], now["nextAttemptAt"]) == ("PENDING", None, None)
        at = (datetime.now(UTC) + timedelta(seconds=90)).isoformat()
        assert patch(api, job_id, runAt=at)["status"] == "SCHEDULED"
        assert patch(api, job_id, runAt=None)["status"] == "PENDING"
        assert patch(api, job_id, delay=60, runAt=None)["status"] == "SCHEDULED"
        assert patch(api, job_id, runAt="2026-01-01T00:00:00Z")["status"] == "PENDING"
        assert patch(api, job_id, delay=0)["status"] == "PENDING"
        assert patch(api, job_id, payload={"result": 1})["status"] == "PENDING"
    finally:
        api.client.post("/queues/low/resume")


def test_null_means_the_default_of_a_new_job(api: Service) -> None:
    job_id = api.post("SUM", {"numbers": [1]}, queue="low", delay=600, retry={"max": 9}, timeout=5, expiresIn=700)
    job = patch(api, job_id, queue=None, retry=None, timeout=None, expiresIn=None)
    assert (job["queue"], job["retryIntervals"], job["maxAttempts"], job["timeout"]) == ("high", [2], 2, 9)
    assert (job["expiresAt"], job["status"]) == (None, "SCHEDULED")
    backoff = api.post("BACKOFF", delay=600, retry={"max": 0})
    assert len(patch(api, backoff, retry=None)["retryIntervals"]) == 4
    assert len(patch(api, backoff, retry={"max": 2})["retryIntervals"]) == 2
    test_job = api.post(payload={"result": 1}, delay=600, tags=["x"])
    job = patch(api, test_job, payload=None, tags=None)
    assert (job["payload"], job["tags"]) == ({}, [])
    errors = refused(api.client.patch(f"/jobs/{job_id}", json={"payload": None}), 422)["errors"]
    assert errors == [{"pointer": "/payload/numbers", "detail": "field required"}]


def test_empty_body_changes_nothing(api: Service) -> None:
    job_id = api.post(delay=600)
    before = api.client.get(f"/jobs/{job_id}")
    for body in ({"json": {}}, {}, {"content": b"", "headers": {"Content-Type": "application/json"}}):
        reply = api.client.patch(f"/jobs/{job_id}", **body)  # type: ignore[arg-type]
        assert (reply.status_code, reply.json()) == (200, before.json())
        assert reply.headers["ETag"] == before.headers["ETag"]


def test_if_match_is_honoured(api: Service) -> None:
    job_id = api.post(delay=600)
    url = f"/jobs/{job_id}"
    first = api.client.get(url).headers["ETag"]
    changed = api.client.patch(url, json={"delay": 700}, headers={"If-Match": first})
    assert changed.headers["ETag"] == api.client.get(url).headers["ETag"] != first
    refused(api.client.patch(url, json={"delay": 800}, headers={"If-Match": first}), 412)
    assert api.client.patch(url, json={"delay": 800}, headers={"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize("end", ["cancelled", "completed", "running"])
def test_job_that_does_not_wait_is_409(stack: Service, end: str) -> None:
    job_id = stack.post(payload={"durationMs": 2000 if end == "running" else 0}, delay=60 if end == "cancelled" else 0)
    if end == "cancelled":
        stack.client.post(f"/jobs/{job_id}/cancel")
    stack.until(job_id, {"cancelled": "CANCELLED", "completed": "COMPLETED", "running": "PROCESSING"}[end])
    before = stack.job(job_id)
    for body in ({"payload": {"result": 1}}, {}):
        detail = refused(stack.client.patch(f"/jobs/{job_id}", json=body), 409)["detail"]
        waiting = "PENDING or SCHEDULED or RETRYING or BLOCKED"
        assert detail == f"the job was {before['status']}; only one that is {waiting} can be changed"
    assert stack.job(job_id) == before


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"type": "SUM"}, "/type", f"known fields: {CHANGEABLE}"),
        ({"uniqueKey": "k"}, "/uniqueKey", f"known fields: {CHANGEABLE}"),
        ({"dely": 5}, "/dely", "did you mean 'delay'"),
        ({"status": "PENDING"}, "/status", CHANGEABLE),
        ({"payload": []}, "/payload", "object"),
        ({"payload": {"durationMs": "1"}}, "/payload/durationMs", "integer"),
        ({"payload": {"nope": 1}}, "/payload/nope", "known fields"),
        ({"payload": {"result": "\0"}}, "/payload/result", "U+0000"),
        ({"queue": "nope"}, "/queue", "known queues: high, default, low"),
        ({"queue": ""}, "/queue", "known queues"),
        ({"delay": -1}, "/delay", "greater"),
        ({"delay": "1"}, "/delay", "number"),
        ({"runAt": "tomorrow"}, "/runAt", "RFC 3339"),
        ({"delay": 1, "runAt": "2026-12-01T00:00:00Z"}, "", "not both"),
        ({"retry": 3}, "/retry", "object"),
        ({"retry": {"max": 101}}, "/retry/max", "100"),
        ({"retry": {"interval": 1, "backoff": {"initial": 1}}}, "/retry", "not both"),
        ({"timeout": 0}, "/timeout", "greater"),
        ({"expiresIn": 0}, "/expiresIn", "greater"),
        ({"tags": [""]}, "/tags/0", "character"),
        ({"tags": ["x"] * 17}, "/tags", "16"),
        ([], "", "object"),
    ],
)
def test_bad_change_is_refused_and_changes_nothing(api: Service, body: Any, pointer: str, detail: str) -> None:
    job_id = api.post(delay=600)
    before = api.job(job_id)
    errors = refused(api.client.patch(f"/jobs/{job_id}", json=body), 422)["errors"]
    assert [error["pointer"] for error in errors] == [pointer]
    assert detail in errors[0]["detail"]
    assert api.job(job_id) == before


def test_unknown_job_is_404(api: Service) -> None:
    refused(api.client.patch(f"/jobs/{uuid.uuid4()}", json={"delay": 1}), 404)
    refused(api.client.patch(f"/jobs/{uuid.uuid4()}", json={}), 404)
    refused(api.client.patch("/jobs/nope", json={}), 404)


def test_other_bodies_are_refused(api: Service) -> None:
    url = f"/jobs/{api.post(delay=600)}"
    refused(api.client.patch(url, content=b"{", headers={"Content-Type": "application/json"}), 400)
    refused(api.client.patch(url, content=b"{}", headers={"Content-Type": "text/plain"}), 415)
    merge = {"Content-Type": "application/merge-patch+json"}
    assert api.client.patch(url, content=b'{"delay": 700}', headers=merge).status_code == 200
    refused(api.client.patch(f"{url}?delay=1", json={}), 422)


def test_change_needs_a_write_key(guarded: Service) -> None:  # noqa: F811
    job_id = guarded.client.post("/jobs", json={"delay": 600}, headers=bearer(WRITE)).json()["jobId"]
    refused(guarded.client.patch(f"/jobs/{job_id}", json={}), 401)
    refused(guarded.client.patch(f"/jobs/{job_id}", json={}, headers=bearer(READ)), 403)
    assert guarded.client.patch(f"/jobs/{job_id}", json={"delay": 1000}, headers=bearer(WRITE)).status_code == 200


def test_type_without_a_handler_here_is_422_only_where_it_is_needed(api: Service) -> None:
    job_id = api.post(delay=600)
    api.sql("UPDATE jobs SET type = 'GONE' WHERE id = %s", job_id)
    for body in ({"payload": {}}, {"queue": None}, {"retry": {"max": 1}}, {"timeout": None}):
        [error] = refused(api.client.patch(f"/jobs/{job_id}", json=body), 422)["errors"]
        assert error["pointer"] == f"/{next(iter(body))}"
        assert "there is no type 'GONE' in this process; known types: " in error["detail"]
    assert patch(api, job_id, delay=700, tags=["x"], queue="low")["queue"] == "low"


def test_changed_job_runs_as_changed(stack: Service, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    job_id = stack.post("NOTE", {"path": str(old)}, delay=2)
    patch(stack, job_id, payload={"path": str(new)}, queue="low", delay=0.2)
    job = stack.until(job_id, "COMPLETED")
    assert (job["queue"], job["attempts"]) == ("low", 1)
    assert (old.exists(), len(new.read_text().splitlines())) == (False, 1)


def test_blocked_job_keeps_its_name_and_runs_as_changed(stack: Service) -> None:
    first = stack.post(delay=3600)
    job_id = stack.post(payload={"result": "old"}, dependsOn=[first], onDependencyFailure="run")
    for body, status in (({"payload": {"result": "new"}, "queue": "low"}, "BLOCKED"), ({"delay": 0.5}, "BLOCKED")):
        assert patch(stack, job_id, **body)["status"] == status
    [error] = refused(stack.client.patch(f"/jobs/{job_id}", json={"dependsOn": []}), 422)["errors"]
    assert error["pointer"] == "/dependsOn"
    stack.client.post(f"/jobs/{first}/cancel")
    job = stack.until(job_id, "COMPLETED")
    assert (job["result"], job["queue"], job["dependsOn"]) == ("new", "low", [first])
    assert job["startedAt"] >= job["runAt"]


def test_job_that_is_postponed_does_not_start_before(stack: Service) -> None:
    job_id = stack.post(delay=0.6)
    job = patch(stack, job_id, delay=2)
    done = stack.until(job_id, "COMPLETED")
    assert done["startedAt"] >= job["runAt"]
    assert done["runAt"] == job["runAt"]


def test_retrying_job_keeps_its_name_and_counts_on(stack: Service) -> None:
    job_id = stack.post(payload={"failAttempts": 2}, retry={"max": 1, "interval": 600}, expiresIn=60)
    before = stack.until(job_id, "RETRYING")
    job = patch(stack, job_id, delay=300, retry={"max": 3, "interval": 0.1})
    assert (job["status"], job["attempts"], job["maxAttempts"]) == ("RETRYING", 1, 5)
    assert (job["retryIntervals"], job["error"]) == ([0.1] * 3, before["error"])
    assert 290 < seconds_until(job["nextAttemptAt"]) <= 300
    assert patch(stack, job_id, delay=None)["status"] in ("RETRYING", "PROCESSING")
    done = stack.until(job_id, "COMPLETED")
    assert done["attempts"] == 3


def test_snoozed_job_can_be_woken_up(stack: Service) -> None:
    job_id = stack.post("SNOOZE", {"times": 1, "seconds": 600})
    eventually(lambda: stack.job(job_id)["status"] == "SCHEDULED" and stack.job(job_id)["startedAt"])
    later = patch(stack, job_id, delay=500)
    assert (later["status"], 490 < seconds_until(later["nextAttemptAt"]) <= 500) == ("SCHEDULED", True)
    assert patch(stack, job_id, runAt=None)["status"] == "PENDING"
    assert stack.until(job_id, "COMPLETED")["result"] == "awake"


def test_expiry_has_no_effect_once_an_attempt_has_started(stack: Service) -> None:
    retrying = stack.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 2})
    stack.until(retrying, "RETRYING")
    snoozed = stack.post("SNOOZE", {"times": 1, "seconds": 2})
    eventually(lambda: stack.job(snoozed)["status"] == "SCHEDULED" and stack.job(snoozed)["startedAt"])
    for job_id in (retrying, snoozed):
        assert 0 < seconds_until(patch(stack, job_id, expiresIn=0.5)["expiresAt"]) <= 0.5
    assert [stack.until(job_id, "COMPLETED", "FAILED")["status"] for job_id in (retrying, snoozed)] == ["COMPLETED"] * 2
    waiting = stack.post(delay=600)
    patch(stack, waiting, expiresIn=0.2)
    assert stack.until(waiting, "FAILED")["error"]["type"] == "Expired"
    lifted = stack.post(delay=1.5, expiresIn=0.7)
    assert patch(stack, lifted, expiresIn=None)["expiresAt"] is None
    stack.until(lifted, "COMPLETED")


def test_rq_shows_the_new_plan(stack: Service) -> None:
    job_id = stack.post(queue="high", delay=600, timeout=5)
    eventually(lambda: stack.rq_places(job_id, "high") == ["scheduled"])
    patch(stack, job_id, queue="low", timeout=99, retry={"max": 2, "interval": [3, 4]}, delay=700)
    eventually(lambda: (stack.rq_places(job_id, "high"), stack.rq_places(job_id, "low")) == ([], ["scheduled"]))
    rq_job = stack.rq_job(job_id)
    assert (rq_job.origin, rq_job.timeout) == ("jobsvc.low", 109)
    assert (rq_job.retries_left, rq_job.retry_intervals) == (2, [3, 4])


def test_change_is_an_event(api: Service) -> None:
    job_id = api.post(delay=600)
    with api.client.stream("GET", f"/jobs/{job_id}/events") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data:"))
        assert '"SCHEDULED"' in next(lines)
        api.client.post("/queues/default/pause")
        try:
            patch(api, job_id, delay=None)
            assert '"PENDING"' in next(lines)
        finally:
            api.client.post("/queues/default/resume")


def test_webhook_delivery_can_be_moved_but_not_forged(api: Service) -> None:
    job_id = api.post(delay=600)
    api.sql("UPDATE jobs SET type = 'WEBHOOK' WHERE id = %s", job_id)
    [error] = refused(api.client.patch(f"/jobs/{job_id}", json={"payload": {}}), 422)["errors"]
    assert error["pointer"] == "/payload"
    assert patch(api, job_id, delay=700)["status"] == "SCHEDULED"


def test_replies_are_problems_while_other_methods_are_405(api: Service) -> None:
    reply: httpx.Response = api.client.put(f"/jobs/{uuid.uuid4()}", json={})
    assert "PATCH" in reply.headers["Allow"]
    refused(reply, 405)
