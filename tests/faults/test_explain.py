"""GET /jobs/:id/explain, from outside: every reason, with the fields that it promises."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.acceptance.test_queues import pause, resume
from tests.faults.conftest import Ground
from tests.support.http import refused
from tests.support.launcher import run_program
from tests.support.service import Service, eventually

OTHER_TYPES = "tests.support.handlers.basic,tests.support.handlers.types"


@pytest.fixture(scope="module")
def shared(apart: dict[str, str]) -> Iterator[Service]:
    env = {"JOBSVC_LEASE_SECONDS": "3", "JOBSVC_SWEEP_SECONDS": "1", "JOBSVC_HANDLERS": OTHER_TYPES}
    service = Service({**apart, **env})
    yield service
    service.close()


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    """A service without a worker, a job or a paused queue."""
    yield shared
    shared.kill_workers()
    shared.redis().flushdb()
    shared.sql("DELETE FROM jobs")
    shared.sql("DELETE FROM queues")


def explain(service: Service, job_id: str) -> dict[str, Any]:
    reply = service.client.get(f"/jobs/{job_id}/explain")
    assert (reply.status_code, reply.headers["Cache-Control"]) == (200, "no-store"), reply.text
    found = dict(reply.json())
    assert list(found) == ["status", "reasons", "next"]
    assert found["reasons"]
    assert all(reason["detail"].endswith(".") for reason in found["reasons"])
    assert found["next"].endswith(".")
    return found


def codes(service: Service, job_id: str) -> list[str]:
    return [reason["code"] for reason in explain(service, job_id)["reasons"]]


def reason(service: Service, job_id: str, code: str) -> dict[str, Any]:
    """The job's reason with this code, once it has one."""

    def check() -> dict[str, Any] | None:
        found = [one for one in explain(service, job_id)["reasons"] if one["code"] == code]
        return found[0] if found else None

    return eventually(check) or {}


def fields(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in ("code", "detail")}


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def test_without_a_worker_a_job_waits_for_one_behind_others(service: Service) -> None:
    ids = [service.post() for _ in range(3)]
    service.post(queue="high")
    service.post(queue="low")
    found = explain(service, ids[2])
    assert (found["status"], found["next"]) == ("PENDING", "Starts when a worker serves the queue default.")
    no_worker, behind = found["reasons"]
    assert (no_worker["code"], fields(no_worker)) == ("no-worker", {"queue": "default"})
    assert (behind["code"], behind["jobs"], behind["jobsOfQueuesBefore"]) == ("behind", 3, {"high": 1})
    assert "payload" not in json.dumps(found)


def test_worker_of_other_queues_is_none_for_this_one(service: Service) -> None:
    service.worker(JOBSVC_QUEUES="high,low")
    assert codes(service, service.post()) == ["no-worker"]


@pytest.mark.parametrize("kind", ["pool", "stock"])
def test_busy_worker_takes_the_jobs_in_turn(service: Service, kind: str) -> None:
    service.worker(kind)
    service.until(service.post(payload={"durationMs": 30_000}), "PROCESSING")
    next_one, after, first = service.post(), service.post(), service.post(queue="high")
    found = explain(service, first)
    assert [(one["code"], one["jobs"]) for one in found["reasons"]] == [("behind", 0)]
    assert found["next"] == "A worker takes the job as soon as one has a free slot."
    assert (reason(service, next_one, "behind")["jobs"], reason(service, after, "behind")["jobs"]) == (1, 2)


def test_later_job_shows_its_time_and_what_else_keeps_it(service: Service) -> None:
    job_id = service.post(delay=3600, queue="low")
    job = service.job(job_id)
    found = explain(service, job_id)
    assert [one["code"] for one in found["reasons"]] == ["due-later", "no-worker"]
    assert fields(found["reasons"][0]) == {"at": job["nextAttemptAt"]}
    service.worker()
    assert codes(service, job_id) == ["due-later"]
    pause(service, "low")
    found = explain(service, job_id)
    assert [one["code"] for one in found["reasons"]] == ["due-later", "queue-paused"]
    assert job["nextAttemptAt"] in found["next"]


def test_paused_queue_is_shown_since_when_until_it_is_resumed(service: Service) -> None:
    service.worker()
    pause(service, "low")
    job_id = service.post(queue="low")
    paused = reason(service, job_id, "queue-paused")
    assert codes(service, job_id) == ["queue-paused"]
    assert paused["queue"] == "low"
    assert abs((datetime.now(UTC) - moment(paused["pausedAt"])).total_seconds()) < 60
    resume(service, "low")
    service.until(job_id, "COMPLETED")


def test_full_concurrency_key_names_the_running_jobs(service: Service) -> None:
    service.worker(JOBSVC_CONCURRENCY="3")
    runs = service.post(payload={"durationMs": 30_000}, concurrencyKey="k")
    service.until(runs, "PROCESSING")
    before, waits = service.post(concurrencyKey="k"), service.post(concurrencyKey="k")
    found = eventually(lambda: (one := reason(service, waits, "concurrency-key"))["jobs"] == 1 and one)
    assert fields(found) == {"key": "k", "limit": 1, "slots": 1, "running": [runs], "jobs": 1}
    assert codes(service, waits) == ["concurrency-key"]
    assert service.client.post(f"/jobs/{runs}/cancel").status_code == 202
    for job_id in (before, waits):
        service.until(job_id, "COMPLETED")


@pytest.mark.parametrize(("kind", "types"), [("pool", True), ("stock", False)])
def test_unknown_type_is_the_reason_until_a_worker_knows_it(service: Service, kind: str, types: bool) -> None:
    service.worker(kind, JOBSVC_HANDLERS="tests.support.handlers.basic")
    job_id = service.post("NEW")
    found = reason(service, job_id, "no-handler")
    assert (found["queue"], found["type"], "TEST_JOB" in found["types"]) == ("default", "NEW", types)
    assert codes(service, job_id)[0] == "no-handler"
    service.worker(JOBSVC_HANDLERS=OTHER_TYPES)
    service.until(job_id, "COMPLETED")


def test_failed_attempt_shows_when_the_next_one_is_due(service: Service) -> None:
    service.worker()
    job_id = service.post(payload={"failAttempts": 1}, retry={"max": 2, "interval": 600})
    job = service.until(job_id, "RETRYING")
    found = explain(service, job_id)
    assert (found["status"], len(found["reasons"])) == ("RETRYING", 1)
    wanted = {"at": job["nextAttemptAt"], "attempt": 1, "maxAttempts": 3, "errorType": "RuntimeError"}
    assert fields(reason(service, job_id, "retry-backoff")) == wanted


def test_snoozed_job_shows_until_when(service: Service) -> None:
    service.worker()
    job_id = service.post("SNOOZE", {"times": 1, "seconds": 600})
    job = eventually(lambda: (one := service.job(job_id))["status"] == "SCHEDULED" and one)
    assert codes(service, job_id) == ["snoozed"]
    assert fields(reason(service, job_id, "snoozed")) == {"at": job["nextAttemptAt"]}


def test_running_job_shows_its_worker_and_its_timeout(service: Service) -> None:
    service.worker()
    job_id = service.post(payload={"durationMs": 60_000}, timeout=90)
    service.until(job_id, "PROCESSING")
    found = reason(service, job_id, "running")
    assert (found["attempt"], found["maxAttempts"], found["cancelRequestedAt"]) == (1, 4, None)
    assert found["worker"] == service.client.get("/workers").json()["workers"][0]["name"]
    assert (moment(found["timeoutAt"]) - moment(found["startedAt"])).total_seconds() == pytest.approx(90)
    assert not found["isLeaseExpired"]
    assert found["timeoutAt"] in explain(service, job_id)["next"]


def test_request_to_cancel_is_shown_while_the_attempt_runs(service: Service) -> None:
    service.worker()
    job_id = service.post("STUBBORN", timeout=60)
    service.until(job_id, "PROCESSING")
    assert service.client.post(f"/jobs/{job_id}/cancel").status_code == 202
    found = explain(service, job_id)  # the handler ignores the request for a second
    assert moment(found["reasons"][0]["cancelRequestedAt"])
    assert "CANCELLED" in found["next"]
    service.until(job_id, "CANCELLED")
    assert fields(reason(service, job_id, "ended"))["outcome"] == "cancelled"


def test_lapsed_lease_is_shown_until_the_job_is_recovered(service: Service) -> None:
    job_id = service.post()
    service.sql(
        "UPDATE jobs SET status = 'PROCESSING', attempts = 1, fence = 1, worker = 'w', started_at = now(),"
        " lease_expires_at = now() + interval '1.5 s' WHERE id = %s",
        job_id,
    )

    def check() -> dict[str, Any] | None:
        found = explain(service, job_id)
        return found if found["reasons"][0].get("isLeaseExpired") else None

    # A sweep may come first: then the next lease is checked.
    found = eventually(lambda: check() or _renew(service, job_id), pause=0.005)
    assert "sweep" in found["next"]
    eventually(lambda: service.job(job_id)["status"] == "RETRYING")


def _renew(service: Service, job_id: str) -> None:
    """Give the job another short lease if its last one was recovered before it was seen."""
    service.sql(
        "UPDATE jobs SET status = 'PROCESSING', fence = fence + 1, lease_expires_at = now() + interval '0.3 s'"
        " WHERE id = %s AND status <> 'PROCESSING'",
        job_id,
    )


def test_each_end_is_explained(service: Service) -> None:
    service.worker()
    done = service.post()
    failed = service.post(payload={"failAttempts": 1}, retry={"max": 0})
    discarded = service.post("DISCARD")
    expired = service.post(delay=1, expiresIn=0.5)
    cancelled = service.post(delay=60)
    assert service.client.post(f"/jobs/{cancelled}/cancel").status_code == 200
    wanted = {
        done: ("COMPLETED", "completed", None, "completed at"),
        failed: ("FAILED", "failed", "RuntimeError", "attempt 1 of 1 was the last"),
        discarded: ("FAILED", "discarded", "Discard", "was discarded"),
        expired: ("FAILED", None, "Expired", "before it expired"),
        cancelled: ("CANCELLED", None, None, "was cancelled"),
    }
    for job_id, (status, outcome, error_type, words) in wanted.items():
        job = service.until(job_id, status)
        found = explain(service, job_id)
        [ended] = found["reasons"]
        assert (found["status"], ended["code"], ended["finishedAt"]) == (status, "ended", job["finishedAt"])
        assert (ended["outcome"], ended["errorType"]) == (outcome, error_type)
        assert words in ended["detail"]
        assert (f"POST /jobs/{job_id}/retry" in found["next"]) == (status != "COMPLETED")


def test_suspended_workers_are_none(service: Service) -> None:
    service.worker()
    service.redis().set("rq:suspended", 1)
    found = explain(service, service.post())
    assert [one["code"] for one in found["reasons"]] == ["no-worker"]
    assert "rq resume" in found["next"]


def test_killed_worker_counts_until_it_missed_its_heartbeats(service: Service) -> None:
    process = service.worker()
    job_id = service.post(delay=3600)
    assert codes(service, job_id) == ["due-later"]
    [key] = service.redis().keys("rq:worker:*")
    eventually(lambda: service.redis().hexists(key, "types") and service.redis().ttl(key) <= 90)  # its first heartbeat
    process.kill()
    assert service.client.get("/workers").json()["workers"]
    eventually(lambda: codes(service, job_id) == ["due-later", "no-worker"], timeout=40, pause=0.5)
    assert service.client.get("/workers").json()["workers"], "Redis keeps the key of the worker for longer"


def test_taken_namespace_counts_as_redis_down(service: Service) -> None:
    service.redis().set("rq:jobsvc:jobsvc:owner", "0" * 32)
    found = reason(service, service.post(), "redis-down")
    assert "belongs to another database" in found["detail"]


def test_unknown_and_malformed_ids_are_refused(service: Service) -> None:
    refused(service.client.get("/jobs/00000000-0000-7000-8000-000000000000/explain"), 404)
    refused(service.client.get("/jobs/none/explain"), 404)
    refused(service.client.get(f"/jobs/{service.post()}/explain?since=1"), 422)


def test_command_explains_a_job_by_the_end_of_its_id(service: Service) -> None:
    job_id = service.post(delay=3600)

    def run(*arguments: str) -> str:
        return run_program(
            sys.executable, "-m", "flask", "--app", "wsgi", "jobs", "explain", *arguments, env=service.env
        ).stdout

    lines = run(job_id[-8:]).splitlines()
    assert [line.split()[0] for line in lines] == ["SCHEDULED", "due-later", "no-worker", "next"]
    assert json.loads(run(job_id, "--json")) == explain(service, job_id)


def test_stopped_redis_is_the_reason_and_workers_are_not_mentioned(ground: Ground) -> None:
    ground.valkey.stop()
    job_id = ground.service.post()
    found = explain(ground.service, job_id)
    assert [one["code"] for one in found["reasons"]] == ["redis-down"]
    assert found["next"] == "Starts after Redis can be used again."
    assert "127.0.0.1" not in json.dumps(found)
    ground.valkey.start()
    assert eventually(lambda: codes(ground.service, job_id)[0] == "no-worker")


def test_stopped_postgres_is_503(ground: Ground) -> None:
    job_id = ground.service.post()
    ground.postgres.stop()
    refused(ground.service.client.get(f"/jobs/{job_id}/explain"), 503)
