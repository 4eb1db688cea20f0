"""Queues, places and workers, with workers of the test's own: what they pass by, and what outlives them."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from tests.acceptance.test_queues import pause, queue, resume
from tests.faults.conftest import Ground
from tests.support.http import refused
from tests.support.service import WORKERS, Service, eventually


def test_counts_and_oldest_age_are_shown(service: Service) -> None:
    assert queue(service, "low")["oldestWaitingSeconds"] is None
    for _ in range(3):
        service.post(queue="low")
    service.post(queue="low", delay=60)
    time.sleep(0.3)
    low = queue(service, "low")
    assert (low["counts"]["PENDING"], low["counts"]["SCHEDULED"]) == (3, 1)
    assert 0.3 <= low["oldestWaitingSeconds"] < 10
    service.worker()
    done = eventually(lambda: (seen := queue(service, "low"))["counts"]["COMPLETED"] == 3 and seen)
    assert (done["counts"]["PENDING"], done["oldestWaitingSeconds"]) == (0, None)


def test_backlog_of_a_paused_queue_delays_no_other(service: Service) -> None:
    """Our workers pass it by; each of its jobs taken up in vain would cost a process."""
    backlog = [service.post(queue="high") for _ in range(300)]
    eventually(lambda: service.redis().llen("rq:queue:jobsvc.high") == 300)
    pause(service, "high")
    service.worker()
    low = [service.post(queue="low") for _ in range(3)]
    for job_id in low:
        service.until(job_id, "COMPLETED")
    assert service.redis().llen("rq:queue:jobsvc.high") == 300
    resume(service, "high")
    service.until(backlog[5], "COMPLETED")


@pytest.fixture
def rarely_swept(clean: None) -> Iterator[Service]:
    """A service that hardly sweeps, so jobs are dispatched only on request."""
    service = Service({"JOBSVC_SWEEP_SECONDS": "60"})
    yield service
    service.close()


@pytest.mark.parametrize("kind", sorted(WORKERS))
def test_finished_job_dispatches_the_next_of_its_key_at_once(rarely_swept: Service, kind: str) -> None:
    rarely_swept.worker(kind)
    ids = [rarely_swept.post(payload={"durationMs": 50}, concurrencyKey="one") for _ in range(5)]
    done = [rarely_swept.until(job_id, "COMPLETED") for job_id in ids]  # each sooner than by a sweep
    for before, after in pairwise(done):
        assert before["finishedAt"] <= after["startedAt"]  # in order, one at a time


def test_worker_waits_while_all_queues_are_paused(rarely_swept: Service) -> None:
    service = rarely_swept
    for name in ("high", "default", "low"):
        pause(service, name)
    worker = service.worker()
    job_id = service.post()
    time.sleep(1.5)
    assert service.job(job_id)["status"] == "PENDING"
    resume(service, "default")
    service.until(job_id, "COMPLETED", timeout=5)
    assert service.alive(worker)
    # Where a worker of one queue alone would keep it.
    assert service.redis().llen("rq:queue:jobsvc.default:intermediate") == 0


def test_pause_survives_a_wiped_redis_and_restarts(ground: Ground) -> None:
    service = ground.service
    before = service.post()
    pause(service, "default")
    service.redis().flushall()
    for process in service.processes:
        process.kill()
    service.api = service.run(*service.api.popen.args)  # type: ignore[misc]
    eventually(service.answers)
    assert queue(service)["paused"] is True
    service.worker()
    after = service.post()
    time.sleep(2 * ground.SWEEP)
    assert {service.job(job_id)["status"] for job_id in (before, after)} == {"PENDING"}
    resume(service, "default")
    service.until(after, "COMPLETED")
    service.until(before, "COMPLETED")


def test_concurrency_limit_is_reached_and_not_exceeded(service: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    service.worker(JOBSVC_WORKERS="3")
    service.worker("stock")
    payload = {"path": str(notes), "seconds": 0.15}
    ids = [service.post("NOTE", payload, concurrencyKey="k", concurrencyLimit=2) for _ in range(10)]
    assert service.job(ids[0])["concurrencyKey"] == "k"
    rq_queue = Queue("jobsvc.default", connection=service.redis(), serializer=JSONSerializer)
    for job_id in ids:  # even if RQ gets them all
        rq_queue.enqueue("jobsvc.execution.run", args=(job_id,), job_id=job_id)
    done = [service.until(job_id, "COMPLETED") for job_id in ids]
    spans = [(job["startedAt"], job["finishedAt"]) for job in done]
    at_once = [sum(since < start < ended for since, ended in spans) + 1 for start, _ in spans]
    assert max(at_once) == 2


def test_slot_of_a_killed_worker_is_freed(ground: Ground) -> None:
    service = ground.service
    worker = service.worker()
    first = service.post(payload={"durationMs": 60_000}, retry={"max": 0}, concurrencyKey="k")
    service.until(first, "PROCESSING")
    second = service.post(concurrencyKey="k")
    worker.kill()
    service.worker()
    service.until(first, "FAILED")
    service.until(second, "COMPLETED")


def test_workers_are_listed_with_their_jobs(service: Service) -> None:
    assert service.client.get("/workers").json() == {"workers": []}
    process = service.worker()
    job_id = service.post(payload={"durationMs": 1500})
    eventually(lambda: service.rq_places(job_id) == ["running"])
    [worker] = service.client.get("/workers").json()["workers"]
    assert list(worker) == ["name", "host", "pid", "state", "queues", "jobs", "lastHeartbeat"]
    assert worker["name"] == service.attempts(job_id)[0]["worker"]
    assert (worker["state"], worker["jobs"], worker["queues"]) == ("busy", [job_id], ["high", "default", "low"])
    assert worker["pid"] in process.tree()
    assert worker["host"]
    age = datetime.now(UTC) - datetime.fromisoformat(worker["lastHeartbeat"])
    assert abs(age.total_seconds()) < 60
    service.until(job_id, "COMPLETED")
    eventually(lambda: service.client.get("/workers").json()["workers"][0]["jobs"] == [])


def test_stock_worker_is_listed_until_it_stops(service: Service) -> None:
    process = service.worker("stock")
    worker = eventually(
        lambda: next((one for one in service.client.get("/workers").json()["workers"] if one["state"] == "idle"), None)
    )
    assert worker["jobs"] == []
    os.kill(worker["pid"], signal.SIGTERM)
    process.wait()
    eventually(lambda: service.client.get("/workers").json() == {"workers": []})


def test_dead_worker_is_listed_until_its_key_expires(service: Service) -> None:
    process = service.worker()
    [worker] = service.client.get("/workers").json()["workers"]
    process.kill()
    key = f"rq:worker:{worker['name']}"
    assert 0 < service.redis().ttl(key) <= 90
    service.redis().delete(key)
    assert service.client.get("/workers").json() == {"workers": []}


def test_workers_are_unknown_without_redis(service: Service) -> None:
    cut_off = Service({"REDIS_URL": "redis://127.0.0.1:9/0"})
    try:
        reply = cut_off.client.get("/workers")
        problem = refused(reply, 503)
        assert int(reply.headers["Retry-After"]) > 0
        assert "127.0.0.1" not in reply.text
        assert problem["title"] == "Redis can't be reached now"
        assert cut_off.client.post("/queues/low/pause").json()["paused"] is True
        assert cut_off.client.post("/queues/low/resume").json()["paused"] is False
    finally:
        cut_off.close()
