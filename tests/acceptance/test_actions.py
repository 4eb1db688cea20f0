"""Cancel, retry, delete, one and many, seen with HTTP alone, under our worker and under a stock one."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.test_rq import fetch, is_in, queue
from tests.support.http import bearer, refused
from tests.support.service import Service, eventually

LONG = {"durationMs": 60_000}


def act(service: Service, job_id: str, what: str, status: int) -> dict[str, Any]:
    reply = service.client.post(f"/jobs/{job_id}/{what}")
    assert reply.status_code == status, reply.text
    return dict(reply.json())


def cancel_running(service: Service, type: str, payload: dict[str, Any], **body: Any) -> dict[str, Any]:
    """The job, cancelled while it ran; the contract's 5 s."""
    job_id = service.post(type, payload, **body)
    service.until(job_id, "PROCESSING")
    assert act(service, job_id, "cancel", 202)["status"] == "PROCESSING"
    return service.until(job_id, "CANCELLED", "COMPLETED", "FAILED", "RETRYING", timeout=5)


def test_cancelled_waiting_job_never_runs(stack: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    blocker = stack.post(payload={"durationMs": 700})
    stack.until(blocker, "PROCESSING")
    waiting = stack.post("NOTE", {"path": str(notes)})
    later = stack.post("NOTE", {"path": str(notes)}, delay=1)
    for job_id in (waiting, later):
        job = act(stack, job_id, "cancel", 200)
        assert (job["id"], job["status"], job["attempts"]) == (job_id, "CANCELLED", 0)
        assert job["finishedAt"]
        assert job == stack.job(job_id)
    eventually(lambda: waiting not in queue(stack).get_job_ids())
    eventually(lambda: not is_in(queue(stack).scheduled_job_registry, later))
    time.sleep(1)
    stack.until(stack.post(), "COMPLETED")  # what was before it in the queue was taken
    assert not notes.exists()
    assert stack.attempts(waiting) == []


def test_cancelled_running_job_is_stopped(stack: Service) -> None:
    job = cancel_running(stack, "TEST_JOB", LONG)
    assert (job["status"], job["attempts"], job["error"], job["result"]) == ("CANCELLED", 1, None, None)
    [attempt] = stack.attempts(job["id"])
    assert (attempt["number"], attempt["outcome"], attempt["error"]) == (1, "cancelled", None)
    refused(stack.client.post(f"/jobs/{job['id']}/cancel"), 409)


def test_cancelled_attempt_is_not_retried_by_rq(stack: Service) -> None:
    job = cancel_running(stack, "TEST_JOB", LONG, retry={"max": 5, "interval": 0})
    eventually(lambda: is_in(queue(stack).failed_job_registry, job["id"]))
    assert fetch(stack, job["id"]).retries_left == 0


@pytest.mark.parametrize("kind", ["STUBBORN", "SWALLOW", "BLOCK_SIGNALS"])
def test_handler_that_ignores_the_cancel_is_stopped(stack: Service, kind: str) -> None:
    job = cancel_running(stack, kind, {}, timeout=600)
    assert job["status"] == "CANCELLED"
    assert [attempt["outcome"] for attempt in stack.attempts(job["id"])] == ["cancelled"]
    stack.until(stack.post(), "COMPLETED", timeout=30)


def test_cancel_is_not_swallowed_by_except_exception(stack: Service) -> None:
    job = cancel_running(stack, "STUBBORN", {})
    eventually(lambda: is_in(queue(stack).failed_job_registry, job["id"]))
    result = fetch(stack, job["id"]).latest_result()
    assert result is not None
    # Not RQ's word for a process that ended.
    assert "Cancelled: the job was cancelled" in (result.exc_string or "")


def test_cancel_after_the_timeout_needs_no_further_grace(stack: Service) -> None:
    job_id = stack.post("SWALLOW", timeout=0.5)
    stack.until(job_id, "PROCESSING")
    time.sleep(1)  # its time is up, and it has swallowed that
    act(stack, job_id, "cancel", 202)
    stack.until(job_id, "CANCELLED", timeout=5)


@pytest.mark.parametrize(
    ("payload", "outcome"), [({}, "cancelled"), ({"fail": True}, "failed"), ({"snooze": True}, "snoozed")]
)
def test_handler_that_checks_for_a_cancel_can_clean_up(stack: Service, payload: dict[str, Any], outcome: str) -> None:
    job = cancel_running(stack, "CHECK_CANCEL", payload)
    assert (job["status"], job["result"]) == ("CANCELLED", None)
    assert job["progress"] == {"percent": 50, "message": "cancelled"}
    [attempt] = stack.attempts(job["id"])
    assert attempt["outcome"] == outcome
    # And not in RQ's schedule, to be tried again.
    eventually(lambda: is_in(queue(stack).failed_job_registry, job["id"]))


def test_job_that_completes_despite_the_cancel_is_completed(stack: Service) -> None:
    job_id = stack.post(payload={"durationMs": 400, "result": "done"})
    stack.until(job_id, "PROCESSING")
    act(stack, job_id, "cancel", 202)
    job = stack.until(job_id, "COMPLETED", "CANCELLED")
    assert (job["status"], job["result"]) == ("COMPLETED", "done")


def test_job_that_fails_after_a_cancel_request_is_cancelled(stack: Service) -> None:
    failing = stack.post(payload={"durationMs": 300, "failAttempts": 9}, retry={"max": 3, "interval": 0})
    stack.until(failing, "PROCESSING")
    act(stack, failing, "cancel", 202)
    assert stack.until(failing, "CANCELLED")["attempts"] == 1


def test_finished_job_is_not_cancelled(stack: Service) -> None:
    done, failed = stack.post(), stack.post("DISCARD")
    for job_id, status in ((done, "COMPLETED"), (failed, "FAILED")):
        stack.until(job_id, status)
        assert status in refused(stack.client.post(f"/jobs/{job_id}/cancel"), 409)["detail"]


def test_retried_failed_job_keeps_its_attempt_count(stack: Service) -> None:
    job_id = stack.post(payload={"failAttempts": 3}, retry={"max": 1, "interval": 0.2}, expiresIn=60)
    first = stack.until(job_id, "FAILED")
    assert first["expiresAt"]
    job = act(stack, job_id, "retry", 200)
    assert (job["status"], job["attempts"], job["maxAttempts"]) == ("PENDING", 2, 4)
    assert (job["runAt"], job["expiresAt"], job["finishedAt"]) == (None, None, None)
    assert job["error"] == first["error"]
    done = stack.until(job_id, "COMPLETED")
    assert (done["attempts"], done["maxAttempts"]) == (4, 4)
    assert [attempt["number"] for attempt in stack.attempts(job_id)] == [1, 2, 3, 4]


def test_retried_cancelled_job_starts_at_once_with_a_higher_fence(stack: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    job_id = stack.post("NOTE", {"path": str(notes), "seconds": 60}, retry={"max": 0})
    for runs in (1, 2):
        eventually(lambda runs=runs: notes.exists() and len(notes.read_text().splitlines()) == runs)
        act(stack, job_id, "cancel", 202)
        stack.until(job_id, "CANCELLED")
        if runs == 1:
            act(stack, job_id, "retry", 200)
    assert [line.split()[1:] for line in notes.read_text().splitlines()] == [["1", "1"], ["2", "2"]]


def test_retried_delayed_job_starts_at_once(stack: Service) -> None:
    job_id = stack.post(delay=3600, expiresIn=7200)
    act(stack, job_id, "cancel", 200)
    act(stack, job_id, "retry", 200)
    stack.until(job_id, "COMPLETED")


def test_only_failed_and_cancelled_jobs_are_retried(stack: Service) -> None:
    done, later = stack.post(), stack.post(delay=60)
    stack.until(done, "COMPLETED")
    for job_id, status in ((done, "COMPLETED"), (later, "SCHEDULED")):
        assert status in refused(stack.client.post(f"/jobs/{job_id}/retry"), 409)["detail"]


def test_retry_with_a_taken_unique_key_is_refused(stack: Service) -> None:
    key = str(uuid.uuid4())
    job_id = stack.post("DISCARD", uniqueKey=key)
    stack.until(job_id, "FAILED")
    holder = stack.post("DISCARD", uniqueKey=key, delay=60)
    assert "uniqueKey" in refused(stack.client.post(f"/jobs/{job_id}/retry"), 409)["detail"]
    act(stack, holder, "cancel", 200)
    act(stack, job_id, "retry", 200)
    stack.until(job_id, "FAILED")


def test_deleted_job_is_removed_from_postgres_and_rq(stack: Service) -> None:
    done, failed = stack.post(payload={"result": 1}), stack.post("DISCARD")
    eventually(lambda: is_in(queue(stack).finished_job_registry, done))
    eventually(lambda: is_in(queue(stack).failed_job_registry, failed))
    for job_id in (done, failed):
        reply = stack.client.delete(f"/jobs/{job_id}")
        assert (reply.status_code, reply.content) == (204, b"")
        refused(stack.client.get(f"/jobs/{job_id}"), 404)
        refused(stack.client.get(f"/jobs/{job_id}/attempts"), 404)
        refused(stack.client.delete(f"/jobs/{job_id}"), 404)
        eventually(lambda job_id=job_id: not stack.redis().keys(f"*{job_id}*"))
    assert not is_in(queue(stack).finished_job_registry, done)
    assert not is_in(queue(stack).failed_job_registry, failed)


def test_unfinished_job_is_not_deleted(stack: Service) -> None:
    waiting, running = stack.post(delay=60), stack.post(payload={"durationMs": 500})
    stack.until(running, "PROCESSING")
    for job_id in (waiting, running):
        refused(stack.client.delete(f"/jobs/{job_id}"), 409)
    stack.until(running, "COMPLETED")


def test_bulk_actions_act_on_filtered_jobs(stack: Service) -> None:
    tag, other = str(uuid.uuid4()), str(uuid.uuid4())
    running = stack.post(payload=LONG, tags=[tag])
    stack.until(running, "PROCESSING")
    waiting = [stack.post(tags=[tag]) for _ in range(3)] + [stack.post(tags=[tag, other], delay=60)]
    left = stack.post(tags=[other], delay=60)
    assert stack.client.post("/jobs/cancel", params={"tag": tag}).json() == {"count": 5}
    for job_id in waiting:
        assert stack.job(job_id)["status"] == "CANCELLED"
    assert stack.until(running, "CANCELLED", timeout=5)
    assert stack.job(left)["status"] == "SCHEDULED"
    both = {"tag": [tag, other], "status": ["FAILED", "CANCELLED"]}
    assert stack.client.post("/jobs/retry", params=both).json() == {"count": 1}
    stack.until(waiting[-1], "COMPLETED")
    assert stack.client.post("/jobs/retry", params={"tag": tag, "status": "FAILED"}).json() == {"count": 0}
    assert stack.client.post("/jobs/cancel", params={"tag": tag}).json() == {"count": 0}


def test_bulk_delete_removes_ended_jobs_alone(stack: Service) -> None:
    tag = str(uuid.uuid4())
    done, failed = stack.post(tags=[tag]), stack.post(payload={"failAttempts": 9}, retry={"max": 0}, tags=[tag])
    stack.until(done, "COMPLETED")
    stack.until(failed, "FAILED")
    waits = stack.post(tags=[tag], delay=60)
    eventually(lambda: is_in(queue(stack).finished_job_registry, done))
    eventually(lambda: is_in(queue(stack).failed_job_registry, failed))
    of_failed = {"tag": tag, "errorType": "RuntimeError", "error": "attempt 1 fails, as asked"}
    assert stack.client.post("/jobs/delete", params={**of_failed, "status": "COMPLETED"}).json() == {"count": 0}
    assert stack.client.post("/jobs/delete", params=of_failed).json() == {"count": 1}
    assert stack.client.post("/jobs/delete", params={"tag": tag}).json() == {"count": 1}
    for job_id in (done, failed):
        refused(stack.client.get(f"/jobs/{job_id}"), 404)
        refused(stack.client.get(f"/jobs/{job_id}/attempts"), 404)
        eventually(lambda job_id=job_id: not stack.redis().keys(f"*{job_id}*"))  # type: ignore[misc]
    assert stack.job(waits)["status"] == "SCHEDULED"
    assert stack.client.post("/jobs/delete", params={"tag": tag}).json() == {"count": 0}


def test_bulk_retry_of_jobs_with_an_error(stack: Service) -> None:
    tag = str(uuid.uuid4())
    failed = stack.post(payload={"failAttempts": 1}, retry={"max": 0}, tags=[tag])
    stack.until(failed, "FAILED")
    for params in ({"error": "attempt 2 fails, as asked"}, {"error": ""}, {"errorType": "Runtime"}):
        assert stack.client.post("/jobs/retry", params={"tag": tag, **params}).json() == {"count": 0}
    wanted = {"tag": tag, "errorType": "RuntimeError", "error": "attempt 1 fails, as asked"}
    assert stack.client.post("/jobs/retry", params=wanted).json() == {"count": 1}
    stack.until(failed, "COMPLETED")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?type=",
        "?queue=",
        "?tag=",
        "?status=",
        "?status=pending",
        "?status=NOPE",
        "?type=A&type=B",
        "?createdAfter=yesterday",
        "?createdAfter=",
        "?limit=5",
        "?nope=1",
        "?errorType=",
        "?error=" + "x" * 201,
        "?type=%00",
        "?type=" + "x" * 256,
        "?" + "&".join(["tag=x"] * 17),
    ],
)
@pytest.mark.parametrize("what", ["cancel", "retry", "delete"])
def test_bad_filter_is_refused(api: Service, what: str, query: str) -> None:
    job_id = api.post(delay=60)
    refused(api.client.post(f"/jobs/{what}{query}"), 422)
    assert api.job(job_id)["status"] == "SCHEDULED"


@pytest.mark.parametrize(
    "path",
    ["/jobs/cancel?type=NOTE", "/jobs/retry?type=NOTE", "/jobs/delete?type=NOTE", "/jobs/{}/cancel", "/jobs/{}/retry"],
)
def test_request_body_is_refused(api: Service, path: str) -> None:
    job_id = api.post(delay=60)
    refused(api.client.post(path.format(job_id), json={"status": "FAILED"}), 422)
    refused(api.client.post(path.format(job_id), content="{", headers={"Content-Type": "application/json"}), 400)
    assert api.job(job_id)["status"] == "SCHEDULED"


@pytest.mark.parametrize("job_id", ["1", "not-a-uuid", "%00", str(uuid.UUID(int=0)), "x" * 5000])
@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")])
def test_unknown_job_is_404(api: Service, job_id: str, method: str, path: str) -> None:
    refused(api.client.request(method, f"/jobs/{job_id}{path}"), 404)


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")])
def test_unknown_query_parameter_is_refused(api: Service, method: str, path: str) -> None:
    job_id = api.post(delay=60)
    refused(api.client.request(method, f"/jobs/{job_id}{path}?force=1"), 422)
    assert api.job(job_id)["status"] == "SCHEDULED"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    service = Service({"JOBSVC_API_KEYS": "eye:read:r,hand:write:w,boss:admin:a"}, key="w")
    yield service
    service.close()


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("POST", "/jobs/{}/cancel", "write"),
        ("POST", "/jobs/{}/retry", "write"),
        ("POST", "/jobs/{}/webhook", "write"),
        ("POST", "/jobs/batch", "write"),
        ("DELETE", "/jobs/{}", "admin"),
        ("POST", "/jobs/cancel?type=NOTE", "admin"),
        ("POST", "/jobs/retry?type=NOTE", "admin"),
        ("POST", "/jobs/delete?type=NOTE", "admin"),
    ],
)
def test_each_action_needs_its_scope(guarded: Service, method: str, path: str, needed: str) -> None:
    job_id = guarded.post(delay=60)

    def ask(key: str) -> httpx.Response:
        body = json.dumps({"jobs": [{}]}) if "batch" in path else None
        headers = {**bearer(key), **({"Content-Type": "application/json"} if body else {})}
        return guarded.client.request(method, path.format(job_id), headers=headers, content=body)

    refused(ask("r"), 403)
    assert (ask("w").status_code == 403) == (needed == "admin")
    assert ask("a").status_code in (200, 202, 409)
