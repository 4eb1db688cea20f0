"""`onConflict`: what a taken uniqueKey means for a new job."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_bad_input import count
from tests.support.http import refused
from tests.support.service import Service


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


def post(service: Service, key: str, how: str | None, **body: Any) -> httpx.Response:
    return service.client.post("/jobs", json={"uniqueKey": key, "onConflict": how, **body})


def replaced(service: Service, key: str, holder: str, **body: Any) -> dict[str, Any]:
    """The holder of the key, once a request has replaced it."""
    reply = post(service, key, "replace", **body)
    assert (reply.status_code, reply.json()) == (200, {"jobId": holder}), reply.text
    return service.job(holder)


@pytest.mark.parametrize("how", ["return", "reject", "replace", None])
def test_free_key_makes_a_job(api: Service, key: str, how: str | None) -> None:
    reply = post(api, key, how, delay=60)
    assert reply.status_code == 202
    assert api.job(reply.json()["jobId"])["uniqueKey"] == key


def test_return_names_the_unfinished_job(api: Service, key: str) -> None:
    holder = api.post(uniqueKey=key, payload={"result": 1}, delay=60)
    before = api.job(holder)
    reply = post(api, key, "return", payload={"result": 2})
    assert (reply.status_code, reply.json()) == (200, {"jobId": holder})
    assert reply.headers["Location"] == f"/jobs/{holder}"
    assert api.job(holder) == before


def test_reject_is_a_409_that_names_the_holder(api: Service, key: str) -> None:
    holder = api.post(uniqueKey=key, delay=60)
    stored = count()
    problem = refused(post(api, key, "reject"), 409)
    assert (problem["jobId"], "errors" in problem) == (holder, False)
    assert "uniqueKey" in problem["detail"]
    assert count() == stored
    assert api.client.post(f"/jobs/{holder}/cancel").status_code == 200
    assert post(api, key, "reject").status_code == 202


def test_another_types_key_is_free(api: Service, key: str) -> None:
    api.post(uniqueKey=key, delay=60)
    assert post(api, key, "reject", type="DISCARD", delay=60).status_code == 202


def test_replace_gives_the_waiting_job_all_values_of_the_request(api: Service, key: str) -> None:
    kept = {"concurrencyKey": f"c-{key}", "concurrencyLimit": 3}
    holder = api.post(
        payload={"result": 1}, uniqueKey=key, queue="high", delay=60, timeout=9, expiresIn=99, tags=["a"], **kept
    )
    job = replaced(
        api,
        key,
        holder,
        payload={"result": 2},
        queue="low",
        delay=600,
        retry={"max": 2, "interval": 7},
        timeout=5,
        expiresIn=5000,
        tags=["b"],
        concurrencyKey="another",
    )
    assert (job["payload"], job["queue"], job["timeout"], job["tags"]) == ({"result": 2}, "low", 5, ["b"])
    assert (job["retryIntervals"], job["maxAttempts"], job["status"]) == ([7, 7], 3, "SCHEDULED")
    assert (job["concurrencyKey"], job["uniqueKey"]) == (f"c-{key}", key)
    assert 590 < seconds(job["createdAt"], job["runAt"]) < 660
    assert 4990 < seconds(job["createdAt"], job["expiresAt"]) < 5060


def test_replace_by_a_request_without_values_takes_the_defaults(api: Service, key: str) -> None:
    holder = api.post(payload={"result": 1}, uniqueKey=key, queue="high", delay=60, timeout=9, expiresIn=99, tags=["a"])
    job = replaced(api, key, holder)
    assert (job["payload"], job["queue"], job["timeout"], job["tags"]) == ({}, "default", 180, [])
    assert (job["retryIntervals"], job["status"], job["runAt"]) == ([1, 5, 25], "PENDING", None)
    assert job["expiresAt"] is None


def test_replace_keeps_what_the_job_depends_on_and_its_rate_limit(api: Service, key: str) -> None:
    first, other = api.post(delay=3600), api.post(delay=3600)
    limit = {"key": key, "limit": 5, "per": 60}
    holder = api.post(uniqueKey=key, dependsOn=[first], rateLimit=limit, payload={"result": 1})
    job = replaced(
        api,
        key,
        holder,
        payload={"result": 2},
        delay=600,
        dependsOn=[other],
        onDependencyFailure="run",
        rateLimit={**limit, "limit": 9},
    )
    assert (job["status"], job["payload"]) == ("BLOCKED", {"result": 2})
    assert (job["dependsOn"], job["rateLimit"]) == ([first], limit)
    api.client.post(f"/jobs/{other}/cancel")
    assert api.job(holder)["status"] == "BLOCKED"
    api.client.post(f"/jobs/{first}/cancel")
    assert api.job(holder)["error"]["type"] == "DependencyFailed"


def seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def test_debounced_job_runs_once_with_the_last_payload(stack: Service, key: str, tmp_path: Path) -> None:
    notes = [tmp_path / str(number) for number in range(6)]
    first = post(stack, key, "replace", type="NOTE", payload={"path": str(notes[0])}, delay=1.5)
    holder = first.json()["jobId"]
    for path in notes[1:]:
        again = post(stack, key, "replace", type="NOTE", payload={"path": str(path)}, delay=1.5)
        assert (again.status_code, again.json()["jobId"]) == (200, holder)
    job = stack.until(holder, "COMPLETED")
    assert job["attempts"] == 1
    assert [path.exists() for path in notes] == [False] * 5 + [True]
    assert job["startedAt"] >= job["runAt"]


def test_retrying_job_is_replaced_and_keeps_its_name_and_attempts(stack: Service, key: str) -> None:
    holder = stack.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 600}, uniqueKey=key)
    stack.until(holder, "RETRYING")
    job = replaced(stack, key, holder, delay=300, retry={"max": 4, "interval": 1}, payload={"result": "new"})
    assert (job["status"], job["attempts"], job["maxAttempts"]) == ("RETRYING", 1, 6)
    assert replaced(stack, key, holder, payload={"result": "newest"})["id"] == holder
    assert stack.until(holder, "COMPLETED")["result"] == "newest"


def test_running_job_is_not_replaced(stack: Service, key: str) -> None:
    holder = stack.post(payload={"durationMs": 1500, "result": 1}, uniqueKey=key)
    stack.until(holder, "PROCESSING")
    problem = refused(post(stack, key, "replace", payload={"result": 2}), 409)
    assert problem["jobId"] == holder
    assert "started" in problem["detail"]
    assert stack.until(holder, "COMPLETED")["result"] == 1
    assert post(stack, key, "replace", payload={"result": 2}).status_code == 202


@pytest.mark.parametrize("body", [{"onConflict": "reject"}, {"onConflict": "return"}, {"onConflict": "replace"}])
def test_without_a_unique_key_it_is_refused(api: Service, body: dict[str, Any]) -> None:
    [error] = refused(api.client.post("/jobs", json=body), 422)["errors"]
    assert (error["pointer"], error["detail"]) == ("/onConflict", "needs a uniqueKey")
    [error] = refused(api.client.post("/jobs/batch", json={"jobs": [{}, body]}), 422)["errors"]
    assert error["pointer"] == "/jobs/1/onConflict"


@pytest.mark.parametrize("how", ["ignore", "", 1, ["reject"]])
def test_other_values_are_refused(api: Service, key: str, how: Any) -> None:
    [error] = refused(post(api, key, how), 422)["errors"]
    assert error["pointer"] == "/onConflict"
    assert "'return', 'reject' or 'replace'" in error["detail"]


def batch(service: Service, *bodies: dict[str, Any]) -> httpx.Response:
    return service.client.post("/jobs/batch", json={"jobs": bodies})


def test_one_reject_refuses_the_whole_batch(api: Service, key: str) -> None:
    holder = api.post(uniqueKey=key, delay=60)
    stored = count()
    one = {"uniqueKey": key, "onConflict": "reject"}
    problem = refused(batch(api, {}, {"uniqueKey": f"free {key}"}, {}, one, {}, one), 409)
    assert [error["pointer"] for error in problem["errors"]] == ["/jobs/3", "/jobs/5"]
    assert problem["jobId"] == holder
    assert count() == stored


def test_reject_of_a_key_that_comes_twice_refuses_the_batch(api: Service, key: str) -> None:
    stored = count()
    problem = refused(batch(api, {"uniqueKey": key}, {}, {"uniqueKey": key, "onConflict": "reject"}), 409)
    assert [error["pointer"] for error in problem["errors"]] == ["/jobs/2"]
    assert "jobId" not in problem  # the first one was not stored either
    assert problem["errors"][0]["detail"] == "an earlier job of this request has the same uniqueKey"
    assert count() == stored


def test_batch_with_replacements_names_the_holders(api: Service, key: str) -> None:
    holder = api.post(uniqueKey=key, delay=60, payload={"result": 0})
    bodies = [
        {"uniqueKey": key, "onConflict": "replace", "payload": {"result": 1}, "delay": 61},
        {},
        {"uniqueKey": key},
        {"uniqueKey": key, "onConflict": "replace", "payload": {"result": 3}, "delay": 63},
    ]
    reply = batch(api, *bodies)
    ids = reply.json()["jobIds"]
    assert (reply.status_code, [ids[0], ids[2], ids[3]]) == (202, [holder] * 3)
    assert api.job(holder)["payload"] == {"result": 3}


def test_last_of_several_new_jobs_with_one_key_counts(stack: Service, key: str) -> None:
    bodies = [
        {"uniqueKey": key, "queue": queue, "timeout": timeout, "onConflict": "replace", "payload": {"result": timeout}}
        for queue, timeout in (("high", 5), ("default", 6), ("low", 7))
    ]
    ids = batch(stack, *bodies).json()["jobIds"]
    assert len(set(ids)) == 1
    job = stack.until(ids[0], "COMPLETED")
    assert (job["result"], job["queue"], job["timeout"], job["attempts"]) == (7, "low", 7, 1)
    assert stack.rq_job(ids[0]).origin.endswith(".low")


def test_replace_of_a_running_job_refuses_the_whole_batch(stack: Service, key: str) -> None:
    holder = stack.post(payload={"durationMs": 1500}, uniqueKey=key)
    stack.until(holder, "PROCESSING")
    stored = count()
    problem = refused(batch(stack, {"delay": 60}, {"uniqueKey": key, "onConflict": "replace"}), 409)
    assert ([error["pointer"] for error in problem["errors"]], problem["jobId"]) == (["/jobs/1"], holder)
    assert count() == stored
    stack.until(holder, "COMPLETED")


def test_idempotency_key_keeps_only_successes(api: Service, key: str) -> None:
    def send() -> httpx.Response:
        body = {"uniqueKey": key, "onConflict": "reject", "delay": 60}
        return api.client.post("/jobs", json=body, headers={"Idempotency-Key": f"i-{key}"})

    holder = api.post(uniqueKey=key, delay=60)
    assert refused(send(), 409)["jobId"] == holder
    api.client.post(f"/jobs/{holder}/cancel")
    accepted = send()
    assert accepted.status_code == 202
    assert (send().status_code, send().json()) == (202, accepted.json())
    refused(post(api, key, "reject"), 409)


def test_repeated_replace_with_an_idempotency_key_replaces_once(api: Service, key: str) -> None:
    def send(number: int) -> httpx.Response:
        body = {"uniqueKey": key, "onConflict": "replace", "delay": 60, "payload": {"result": number}}
        return api.client.post("/jobs", json=body, headers={"Idempotency-Key": f"i-{number}-{key}"})

    holder = send(0).json()["jobId"]
    assert (send(1).status_code, send(2).status_code) == (200, 200)
    again = send(1)
    assert (again.status_code, again.json()["jobId"]) == (200, holder)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert api.job(holder)["payload"] == {"result": 2}


def test_fifty_concurrent_replacements_and_a_start_lose_nothing(stack: Service, key: str, tmp_path: Path) -> None:
    """Each request either replaced the job before its start, or got a 409: what ran is the last that was replaced."""
    for round_ in range(4):
        folder = tmp_path / str(round_)
        folder.mkdir()
        due = {"type": "NOTE", "delay": 0.3}
        first = post(stack, key, "replace", payload={"path": str(folder / "first")}, **due)
        holder = first.json()["jobId"]

        def replace(number: int, folder: Path = folder) -> httpx.Response:
            payload = {"path": str(folder / str(number)), "seconds": 1}
            return post(stack, key, "replace", type="NOTE", payload=payload, delay=0.05 if number % 2 else None)

        with ThreadPoolExecutor(50) as pool:
            replies = list(pool.map(replace, range(50)))
        statuses = {reply.status_code for reply in replies}
        assert statuses <= {200, 202, 409}
        assert all(reply.json()["jobId"] == holder for reply in replies if reply.status_code in (200, 409))
        made = [holder, *(reply.json()["jobId"] for reply in replies if reply.status_code == 202)]
        for job_id in made:
            job = stack.until(job_id, "COMPLETED", timeout=40)
            assert job["attempts"] == 1
        run = {path.name for path in folder.iterdir()}
        assert len(run) == len(made)
        assert stack.job(holder)["payload"]["path"].rpartition("/")[2] in run
        taken = {str(number) for number, reply in enumerate(replies) if reply.status_code in (200, 202)}
        assert run <= taken | {"first"}
