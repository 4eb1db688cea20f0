"""Workflows: jobs that start when others have ended."""

import uuid
from typing import Any

import pytest

from tests.acceptance.test_bad_input import count
from tests.support.http import refused
from tests.support.service import Service, eventually

FAIL = {"type": "TEST_JOB", "payload": {"failAttempts": 100}, "retry": {"max": 0}}


def batch(service: Service, *jobs: dict[str, Any]) -> list[str]:
    reply = service.client.post("/jobs/batch", json={"jobs": jobs})
    assert reply.status_code == 202, reply.text
    return list(reply.json()["jobIds"])


def test_job_starts_when_its_dependencies_have_completed(stack: Service) -> None:
    first, second = stack.post(payload={"durationMs": 300}), stack.post(payload={"durationMs": 500})
    dependent = stack.post(dependsOn=[first, second, first])
    shown = stack.job(dependent)
    assert (shown["status"], shown["dependsOn"], shown["nextAttemptAt"]) == ("BLOCKED", [first, second], None)
    done = stack.until(dependent, "COMPLETED")
    for one in (first, second):
        assert stack.job(one)["finishedAt"] <= done["startedAt"]


def test_failed_dependency_cancels_its_dependents(stack: Service) -> None:
    first, second, third, fourth = batch(
        stack,
        {"ref": "a", **FAIL},
        {"ref": "b", "dependsOn": ["a"]},
        {"ref": "c", "dependsOn": ["b"]},
        {"dependsOn": ["c"], "onDependencyFailure": "run"},
    )
    stack.until(fourth, "COMPLETED")
    assert stack.job(first)["status"] == "FAILED"
    for job_id, cause, status in ((second, first, "FAILED"), (third, second, "CANCELLED")):
        job = stack.job(job_id)
        assert (job["status"], job["error"]["type"], job["attempts"]) == ("CANCELLED", "DependencyFailed", 0)
        assert cause in job["error"]["message"]
        assert status in job["error"]["message"]


def test_run_starts_a_job_after_failures(stack: Service) -> None:
    failed, cancelled = stack.post(**FAIL), stack.post(delay=3600)
    dependent = stack.post(dependsOn=[failed, cancelled], onDependencyFailure="run")
    stack.until(failed, "FAILED")
    assert stack.job(dependent)["status"] == "BLOCKED"
    stack.client.post(f"/jobs/{cancelled}/cancel")
    stack.until(dependent, "COMPLETED")


def test_ended_dependencies_decide_at_once(stack: Service) -> None:
    completed, failed = stack.post(), stack.post(**FAIL)
    stack.until(completed, "COMPLETED")
    stack.until(failed, "FAILED")
    assert stack.job(stack.post(dependsOn=[completed], delay=3600))["status"] == "SCHEDULED"
    stack.until(stack.post(dependsOn=[completed]), "COMPLETED")
    stack.until(stack.post(dependsOn=[completed, failed], onDependencyFailure="run"), "COMPLETED")
    waiting = stack.post(delay=3600)
    reply = stack.client.post("/jobs", json={"dependsOn": [waiting, failed]})
    assert reply.status_code == 202
    job = stack.job(reply.json()["jobId"])
    assert (job["status"], job["error"]["type"]) == ("CANCELLED", "DependencyFailed")
    assert job["finishedAt"] is not None


def test_delay_and_expiry_count_from_acceptance(stack: Service) -> None:
    first = stack.post(payload={"durationMs": 1500})
    late = stack.post(dependsOn=[first], delay=3600)
    soon = stack.post(dependsOn=[first], delay=0.5)
    expiring = stack.post(dependsOn=[first], expiresIn=0.2)
    assert stack.until(expiring, "FAILED")["error"]["type"] == "Expired"
    stack.until(soon, "COMPLETED")
    job = stack.job(late)
    assert (job["status"], job["nextAttemptAt"]) == ("SCHEDULED", job["runAt"])


def test_expired_dependency_cancels(api: Service) -> None:
    first = api.post(delay=3600, expiresIn=0.1)
    dependent = api.post(dependsOn=[first])
    job = api.until(dependent, "CANCELLED")
    assert "FAILED" in job["error"]["message"]


def test_refs_may_name_later_jobs_and_holders_of_unique_keys(api: Service) -> None:
    key = str(uuid.uuid4())
    holder, waiting = api.post(uniqueKey=key, delay=3600), api.post(delay=3600)
    ids = batch(
        api,
        {"dependsOn": ["last", "taken"]},
        {"ref": "taken", "uniqueKey": key, "dependsOn": [waiting]},
        {"ref": "last", "dependsOn": [waiting.upper()]},
    )
    assert ids[1] == holder
    assert api.job(ids[0])["dependsOn"] == [ids[2], holder]
    assert api.job(ids[2])["dependsOn"] == [waiting]
    assert api.job(holder)["dependsOn"] == []
    assert api.job(holder)["status"] == "SCHEDULED"
    assert [api.job(one)["status"] for one in (ids[0], ids[2])] == ["BLOCKED", "BLOCKED"]


A, B = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.mark.parametrize(
    ("path", "body", "pointers"),
    [
        ("/jobs", {"dependsOn": [A]}, {"/dependsOn/0"}),
        ("/jobs", {"dependsOn": ["a"]}, {"/dependsOn/0"}),
        ("/jobs", {"dependsOn": [1, None, {}]}, {"/dependsOn/0", "/dependsOn/1", "/dependsOn/2"}),
        ("/jobs", {"dependsOn": A}, {"/dependsOn"}),
        ("/jobs", {"dependsOn": None}, {"/dependsOn"}),
        ("/jobs", {"dependsOn": [f"urn:uuid:{A}"]}, {"/dependsOn/0"}),
        ("/jobs", {"dependsOn": [A] * 1001}, {"/dependsOn"}),
        ("/jobs", {"ref": "a"}, {"/ref"}),
        ("/jobs", {"dependsOn": [], "onDependencyFailure": "stop"}, {"/onDependencyFailure"}),
        ("/jobs", {"onDependencyFailure": "run"}, {"/onDependencyFailure"}),
        ("/jobs/batch", [{}, {"dependsOn": [A, B]}], {"/jobs/1/dependsOn/0", "/jobs/1/dependsOn/1"}),
        ("/jobs/batch", [{"ref": "a"}, {"dependsOn": ["a", "b"]}], {"/jobs/1/dependsOn/1"}),
        ("/jobs/batch", [{"ref": "a"}, {"ref": "a"}], {"/jobs/1/ref"}),
        ("/jobs/batch", [{"ref": A}], {"/jobs/0/ref"}),
        ("/jobs/batch", [{"ref": ""}, {"ref": "x" * 65}, {"ref": 1}], {"/jobs/0/ref", "/jobs/1/ref", "/jobs/2/ref"}),
        ("/jobs/batch", [{}, {"ref": "a", "dependsOn": ["a"]}], {"/jobs/1/dependsOn/0"}),
        (
            "/jobs/batch",
            [{"ref": "a", "dependsOn": ["c"]}, {"ref": "b", "dependsOn": ["a"]}, {"ref": "c", "dependsOn": ["b"]}],
            {"/jobs/1/dependsOn/0"},
        ),
        ("/jobs/batch", [{"onDependencyFailure": "run"}], {"/jobs/0/onDependencyFailure"}),
    ],
)
def test_wrong_dependencies_are_refused_and_nothing_is_stored(
    api: Service, path: str, body: Any, pointers: set[str]
) -> None:
    before = count()
    problem = refused(api.client.post(path, json={"jobs": body} if isinstance(body, list) else body), 422)
    assert {one["pointer"] for one in problem["errors"]} == pointers
    assert count() == before


def test_thousand_dependencies_are_allowed(api: Service) -> None:
    ids = batch(api, *[{"delay": 3600}] * 1000)
    assert api.job(api.post(dependsOn=ids))["dependsOn"] == ids


def test_no_dependencies_make_a_plain_job(api: Service) -> None:
    assert api.job(api.post(dependsOn=[], onDependencyFailure="run"))["status"] == "PENDING"


def test_idempotency_key_replays_a_workflow(api: Service) -> None:
    before = count()
    jobs = [{"ref": "a", "delay": 3600}, {"dependsOn": ["a"]}]
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first, second = (api.client.post("/jobs/batch", json={"jobs": jobs}, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    assert count() == before + 2


@pytest.mark.parametrize("field", [{"dependsOn": [A]}, {"onDependencyFailure": "run", "dependsOn": []}])
def test_schedule_takes_no_dependencies(api: Service, field: dict[str, Any]) -> None:
    problem = refused(api.client.put("/schedules/flow", json={"cron": "@hourly", "job": field}), 422)
    assert [one["pointer"] for one in problem["errors"]] == [f"/job/{next(iter(field))}"]


def test_blocked_jobs_are_listed_and_cancelled(api: Service) -> None:
    tag = str(uuid.uuid4())
    first = api.post(delay=3600)
    dependent = api.post(dependsOn=[first], tags=[tag])
    following = api.post(dependsOn=[dependent])
    found = api.client.get("/jobs", params={"status": "BLOCKED", "tag": tag}).json()["jobs"]
    assert [job["id"] for job in found] == [dependent]
    reply = api.client.post(f"/jobs/{dependent}/cancel")
    assert (reply.status_code, reply.json()["status"]) == (200, "CANCELLED")
    assert api.job(following)["error"]["type"] == "DependencyFailed"


def test_what_a_blocked_job_depends_on_is_not_deleted(stack: Service) -> None:
    tag = str(uuid.uuid4())
    done, waiting = stack.post(tags=[tag]), stack.post(delay=3600)
    stack.until(done, "COMPLETED")
    dependent = stack.post(dependsOn=[done, waiting])
    problem = refused(stack.client.delete(f"/jobs/{done}"), 409)
    assert dependent in problem["detail"]
    assert stack.client.post("/jobs/delete", params={"tag": tag}).json() == {"count": 0}
    stack.client.post(f"/jobs/{dependent}/cancel")
    assert stack.client.delete(f"/jobs/{done}").status_code == 204
    assert stack.job(dependent)["dependsOn"] == [done, waiting]
    # A deleted one no longer counts.
    reply = stack.client.post(f"/jobs/{dependent}/retry")
    assert (reply.status_code, reply.json()["status"]) == (200, "BLOCKED")
    stack.client.post(f"/jobs/{waiting}/cancel")
    assert stack.job(dependent)["status"] == "CANCELLED"
    assert stack.client.delete(f"/jobs/{dependent}").status_code == 204


def test_retry_waits_for_dependencies_that_have_not_ended(stack: Service) -> None:
    tag = str(uuid.uuid4())
    first = stack.post(**FAIL)
    dependent = stack.post(dependsOn=[first], tags=[tag])
    following = stack.post(dependsOn=[dependent])
    stack.until(following, "CANCELLED")
    problem = refused(stack.client.post(f"/jobs/{dependent}/retry"), 409)
    assert first in problem["detail"]
    assert stack.client.post("/jobs/retry", params={"tag": tag}).json() == {"count": 0}
    assert stack.job(dependent)["status"] == "CANCELLED"
    stack.client.post("/queues/default/pause")
    try:
        assert stack.client.post(f"/jobs/{first}/retry").json()["status"] == "PENDING"
        for one in (dependent, following):
            assert stack.job(one)["status"] == "CANCELLED"  # a retry does not retry what the job cancelled
            assert stack.client.post(f"/jobs/{one}/retry").json()["status"] == "BLOCKED"
    finally:
        stack.client.post("/queues/default/resume")
    job = stack.until(following, "CANCELLED")
    assert dependent in job["error"]["message"]


def test_dependency_that_is_retried_blocks_again(api: Service) -> None:
    first, second = api.post(delay=3600), api.post(delay=3600)
    dependent = api.post(dependsOn=[first, second], onDependencyFailure="run")
    api.client.post(f"/jobs/{first}/cancel")
    api.client.post("/queues/default/pause")
    try:
        api.client.post(f"/jobs/{first}/retry")
        api.client.post(f"/jobs/{second}/cancel")
        assert api.job(dependent)["status"] == "BLOCKED"
        api.client.post(f"/jobs/{first}/cancel")
        assert api.job(dependent)["status"] == "PENDING"
    finally:
        api.client.post("/queues/default/resume")


@pytest.mark.parametrize("stack", ["pool"], indirect=True)
def test_thousand_jobs_in_one_workflow(stack: Service) -> None:
    layers = [{"ref": f"a{n}"} for n in range(400)]
    layers += [{"ref": f"b{n}", "dependsOn": [f"a{n}"]} for n in range(400)]
    layers += [{"ref": f"c{n}", "dependsOn": [f"b{m}" for m in range(n, 400, 199)]} for n in range(199)]
    ids = batch(stack, *layers, {"dependsOn": [f"c{n}" for n in range(199)]})
    assert len(set(ids)) == 1000
    stack.until(ids[-1], "COMPLETED")
    eventually(lambda: all(stack.job(one)["status"] == "COMPLETED" for one in ids[::97]))


def test_handler_reads_the_results_of_its_dependencies(stack: Service) -> None:
    none, some = stack.post(), stack.post(payload={"result": {"a": [1, "x"]}})
    failed = stack.post(**FAIL)
    dependent = stack.post("GATHER", dependsOn=[some, none, failed], onDependencyFailure="run")
    assert stack.until(dependent, "COMPLETED")["result"] == {some: {"a": [1, "x"]}, none: None}
    assert stack.until(stack.post("GATHER"), "COMPLETED")["result"] == {}
    forking = stack.post("GATHER", {"forks": True}, dependsOn=[some, none])
    assert stack.until(forking, "COMPLETED")["result"] == {some: {"a": [1, "x"]}, none: None}
    other = stack.post("GATHER", {"only": some}, dependsOn=[none], retry={"max": 0})
    assert stack.until(other, "FAILED")["error"]["type"] == "KeyError"


def test_explain_names_the_open_dependencies(api: Service) -> None:
    ids = batch(api, *[{"delay": 3600}] * 12)
    dependent = api.post(dependsOn=ids)
    api.client.post(f"/jobs/{ids[0]}/cancel")
    cancelled = api.client.get(f"/jobs/{dependent}/explain").json()
    assert (cancelled["status"], cancelled["reasons"][0]["code"]) == ("CANCELLED", "ended")
    dependent = api.post(dependsOn=ids, onDependencyFailure="run")
    explained = api.client.get(f"/jobs/{dependent}/explain").json()
    reason = explained["reasons"][0]
    assert (explained["status"], reason["code"], reason["jobs"]) == ("BLOCKED", "blocked", 11)
    assert reason["dependencies"] == [{"id": one, "status": "SCHEDULED"} for one in ids[1:11]]
    assert "1 more" in reason["detail"]
