"""Schedules, from outside."""

from datetime import datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from jobsvc.db.engine import transaction
from tests.acceptance.test_access import READ, WRITE, guarded  # noqa: F401  # a fixture
from tests.acceptance.test_bad_input import JSON
from tests.support.http import bearer, refused
from tests.support.service import Service, eventually

NIGHTLY = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "job": {"payload": {"result": 7}, "tags": ["nightly"]}}


@pytest.fixture(autouse=True)
def _none_before() -> None:
    sql("TRUNCATE schedules")


@pytest.fixture
def url() -> str:
    return "/schedules/Nightly.1"


def sql(statement: str) -> Any:
    with transaction() as connection:
        result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else result.rowcount


def test_schedule_is_created_changed_and_deleted(api: Service, url: str) -> None:
    reply = api.client.put(url, json=NIGHTLY)
    assert reply.status_code == 201, reply.text
    assert reply.headers["Location"] == url
    shown = reply.json()
    next_run = datetime.fromisoformat(shown["nextRunAt"])
    assert next_run > datetime.fromisoformat("2026-01-01T00:00:00Z")
    assert list(shown) == ["name", "cron", "timezone", "enabled", "job", "nextRunAt", "lastRunAt", "lastJobId"]
    assert shown == {
        "name": "Nightly.1",
        **NIGHTLY,
        "enabled": True,
        "nextRunAt": shown["nextRunAt"],
        "lastRunAt": None,
        "lastJobId": None,
    }
    assert api.client.get(url).json() == shown
    assert api.client.get("/schedules").json() == {"schedules": [shown]}

    run = api.client.post(f"{url}/run")
    assert run.status_code == 202, run.text
    job_id = run.json()["jobId"]
    assert run.json() == {"jobId": job_id}
    assert run.headers["Location"] == f"/jobs/{job_id}"
    assert (api.job(job_id)["payload"], api.job(job_id)["tags"]) == ({"result": 7}, ["nightly"])
    after = api.client.get(url).json()
    assert (after["lastJobId"], after["nextRunAt"]) == (job_id, shown["nextRunAt"])
    assert after["lastRunAt"] == api.job(job_id)["createdAt"]

    paused = api.client.put(url, json={**NIGHTLY, "enabled": False})
    assert paused.status_code == 200
    assert "Location" not in paused.headers
    assert (paused.json()["nextRunAt"], paused.json()["lastJobId"]) == (None, job_id)
    assert api.client.put(url, json=NIGHTLY).json()["nextRunAt"] == shown["nextRunAt"]

    deleted = api.client.delete(url)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for method, path in (("GET", url), ("DELETE", url), ("POST", f"{url}/run")):
        refused(api.client.request(method, path), 404)
    assert api.client.get("/schedules").json() == {"schedules": []}
    assert api.job(job_id)["id"] == job_id


def test_job_of_a_tick_runs(stack: Service) -> None:
    stack.client.put("/schedules/ticks", json=NIGHTLY)
    try:
        sql("UPDATE schedules SET next_run_at = now() - interval '2 days' WHERE name = 'ticks'")
        shown = eventually(lambda: (now := stack.client.get("/schedules/ticks").json())["lastJobId"] and now)
        assert stack.until(shown["lastJobId"], "COMPLETED")["result"] == 7
        assert shown["nextRunAt"] > shown["lastRunAt"]
    finally:
        stack.client.delete("/schedules/ticks")


@pytest.mark.parametrize(
    "job",
    [{"retry": {"max": 3, "backoff": {"initial": 1}}}, {"type": "BACKOFF"}, {"type": "BACKOFF", "retry": {"max": 3}}],
    ids=["given", "the handler's", "the handler's, with another maximum"],
)
def test_backoff_is_drawn_for_each_job_of_a_schedule(api: Service, url: str, job: dict[str, Any]) -> None:
    assert api.client.put(url, json={"cron": "@yearly", "job": {"delay": 3600, **job}}).status_code == 201
    drawn = []
    for _ in range(3):
        drawn.append(api.job(api.client.post(f"{url}/run").json()["jobId"])["retryIntervals"])
        before = api.client.get(url).json()["lastJobId"]
        sql("UPDATE schedules SET next_run_at = now()")
        ticked = eventually(lambda: (now := api.client.get(url).json()["lastJobId"]) != before and now)  # noqa: B023
        drawn.append(api.job(ticked)["retryIntervals"])
    initial, factor = (0.5, 3) if "type" in job else (1, 2)
    for intervals in drawn:
        assert len(intervals) == (4 if job == {"type": "BACKOFF"} else 3)
        for number, seconds in enumerate(intervals):
            assert 0.9 <= seconds / (initial * factor**number) <= 1.1
    assert len({tuple(intervals) for intervals in drawn}) == len(drawn)


def test_onconflict_decides_about_ticks_and_runs(api: Service, url: str) -> None:
    def put(how: str, result: int) -> None:
        job = {"uniqueKey": "the schedule's", "delay": 3600, "onConflict": how, "payload": {"result": result}}
        assert api.client.put(url, json={"cron": "@yearly", "job": job}).status_code in (200, 201)

    def tick() -> dict[str, Any]:
        sql("UPDATE schedules SET next_run_at = now()")
        eventually(lambda: sql("SELECT next_run_at > now() FROM schedules"))
        return dict(api.client.get(url).json())

    put("reject", 1)
    first = tick()
    job_id = first["lastJobId"]
    again = tick()  # its job is unfinished
    assert (again["lastJobId"], again["lastRunAt"]) == (job_id, first["lastRunAt"])
    assert refused(api.client.post(f"{url}/run"), 409)["jobId"] == job_id
    put("replace", 2)
    replaced = tick()
    assert (replaced["lastJobId"], replaced["lastRunAt"] > first["lastRunAt"]) == (job_id, True)
    assert api.job(job_id)["payload"] == {"result": 2}
    put("replace", 3)
    run = api.client.post(f"{url}/run")
    assert (run.status_code, run.json()) == (200, {"jobId": job_id})
    assert api.job(job_id)["payload"] == {"result": 3}
    put("return", 4)
    assert tick()["lastJobId"] == job_id
    assert api.job(job_id)["payload"] == {"result": 3}


def wrong(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**NIGHTLY, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({}, "/cron", "required"),
        (wrong(cron=...), "/cron", "required"),
        (wrong(job=...), "/job", "required"),
        (wrong(job=None), "/job", "object"),
        (wrong(job=[]), "/job", "object"),
        (wrong(cron=5), "/cron", "string"),
        (wrong(cron="* * * *"), "/cron", "five fields"),
        (wrong(cron="0 0 2 * * *"), "/cron", "five fields"),
        (wrong(cron="@reboot"), "/cron", "five fields"),
        (wrong(cron="61 * * * *"), "/cron", "can't have"),
        (wrong(cron="0 0 30 2 *"), "/cron", "never"),
        (wrong(cron="*," * 200 + "* * * * *"), "/cron", "255"),
        (wrong(timezone="Mars/Olympus"), "/timezone", "no time zone"),
        (wrong(timezone="../../etc/passwd"), "/timezone", "no time zone"),
        (wrong(timezone="x" * 5000), "/timezone", "no time zone"),
        (wrong(timezone=None), "/timezone", "string"),
        (wrong(enabled="true"), "/enabled", "boolean"),
        (wrong(enabled=1), "/enabled", "boolean"),
        (wrong(name="other"), "/name", "not permitted"),
        (wrong(nextRunAt="2030-01-01T00:00:00Z"), "/nextRunAt", "not permitted"),
        (wrong(job={"type": "NOPE"}), "/job/type", "known types"),
        (wrong(job={"queue": "nope"}), "/job/queue", "known queues"),
        (wrong(job={"delay": "5"}), "/job/delay", "number"),
        (wrong(job={"onConflict": "reject"}), "/job/onConflict", "needs a uniqueKey"),
        (wrong(job={"retry": {"backoff": {"initial": 0}}}), "/job/retry/backoff/initial", "greater than or equal"),
        (wrong(job={"retry": {"backoff": {"initial": 1}, "interval": 1}}), "/job/retry", "not both"),
        (wrong(job={"nope": 1}), "/job/nope", "not permitted"),
        (wrong(job={"payload": {"durationMs": "1"}}), "/job/payload/durationMs", "integer"),
        (wrong(job={"payload": {"result": "a\x00b"}}), "/job/payload/result", "U+0000"),
        (wrong(job={"runAt": "2027-01-01T00:00:00Z"}), "/job/runAt", "each tick starts a job"),
        (wrong(job={"type": "HTTP_REQUEST", "payload": {"url": "http://169.254.169.254/"}}), "/job/payload/url", ""),
    ],
)
def test_bad_schedule_is_not_stored(api: Service, url: str, body: dict[str, Any], pointer: str, detail: str) -> None:
    problem = refused(api.client.put(url, json=body), 422)
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert detail in next(error["detail"] for error in problem["errors"] if error["pointer"] == pointer)
    refused(api.client.get(url), 404)


def test_schedule_without_a_body_is_refused(api: Service, url: str) -> None:
    refused(api.client.put(url), 422)
    refused(api.client.put(url, content=b"[]", headers=JSON), 422)
    refused(api.client.put(url, content=b"{", headers=JSON), 400)
    refused(api.client.put(url, content=b"{}", headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize("name", ["a" * 65, "_a", ".a", "a b", "a%00b", "%ED%A0%80", "a%0A", "caf%C3%A9", "-"])
def test_bad_name_is_refused(api: Service, name: str) -> None:
    path = httpx.URL(f"{api.url}/schedules/{name}")
    assert api.client.put(path, json=NIGHTLY).status_code == 422
    for method in ("GET", "DELETE"):
        assert api.client.request(method, path).status_code == 404
    assert api.client.post(f"{path}/run").status_code == 404
    assert api.client.get("/schedules").json() == {"schedules": []}


def test_name_of_64_characters_is_accepted(api: Service) -> None:
    path = "/schedules/" + "a" * 64
    assert api.client.put(path, json=wrong(enabled=False)).status_code == 201
    assert api.client.delete(path).status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/schedules"), ("GET", "/schedules/x"), ("PUT", "/schedules/x"), ("POST", "/schedules/x/run")],
)
def test_query_parameters_are_refused(api: Service, method: str, path: str) -> None:
    refused(api.client.request(method, f"{path}?limit=1", json=NIGHTLY if method == "PUT" else None), 422)
    assert api.client.get("/schedules").json() == {"schedules": []}


def test_run_and_delete_refuse_a_body(api: Service, url: str) -> None:
    api.client.put(url, json=wrong(enabled=False))
    refused(api.client.post(f"{url}/run", json={"payload": {}}), 422)
    assert api.client.post(f"{url}/run", json={}).status_code == 202
    refused(api.client.request("DELETE", url, json={"jobs": True}), 422)
    assert api.client.get(url).status_code == 200


def test_run_with_a_taken_unique_key_makes_no_job(api: Service, url: str) -> None:
    api.client.put(url, json=wrong(enabled=False, job={"uniqueKey": "the one", "delay": 3600}))
    first = api.client.post(f"{url}/run")
    again = api.client.post(f"{url}/run")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()


def test_other_methods_are_405(api: Service) -> None:
    refused(api.client.post("/schedules", json=NIGHTLY), 405)
    refused(api.client.patch("/schedules/x", json=NIGHTLY), 405)
    refused(api.client.get("/schedules/x/run"), 405)


def test_changes_need_an_admin_key(guarded: Service) -> None:  # noqa: F811
    for key in (READ, WRITE):
        assert guarded.client.get("/schedules", headers=bearer(key)).status_code == 200
        refused(guarded.client.get("/schedules/x", headers=bearer(key)), 404)
        refused(guarded.client.put("/schedules/x", json=NIGHTLY, headers=bearer(key)), 403)
        refused(guarded.client.delete("/schedules/x", headers=bearer(key)), 403)
        refused(guarded.client.post("/schedules/x/run", headers=bearer(key)), 403)
    refused(guarded.client.delete("/schedules/x", headers=bearer("a-key")), 404)
