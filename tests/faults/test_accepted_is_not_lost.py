"""A job answered with 202 is not lost when Redis, Postgres or a worker fails."""

import os
import signal
import time
from pathlib import Path

from tests.faults.conftest import Ground
from tests.support.service import eventually


def test_jobs_run_after_an_outage_of_redis(ground: Ground) -> None:
    service = ground.service
    service.worker()
    ground.valkey.stop()
    began = time.monotonic()
    accepted = [service.post() for _ in range(20)]
    later, failing = service.post(delay=1), service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 1})
    assert time.monotonic() - began < 5  # no waiting for a connect timeout on each
    ready = service.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "postgres": "up", "redis": "down"})
    assert service.client.get("/rq/").status_code in (200, 503)
    assert {service.job(job_id)["status"] for job_id in accepted} == {"PENDING"}
    ground.valkey.start()
    for job_id in [*accepted, later, failing]:
        service.until(job_id, "COMPLETED", timeout=60)
    assert service.job(failing)["attempts"] == 2
    assert {service.job(job_id)["attempts"] for job_id in accepted} == {1}
    assert service.api.output.count("Redis: unavailable") == 1


def test_jobs_run_after_redis_was_wiped(ground: Ground, tmp_path: Path) -> None:
    service = ground.service
    waiting = [service.post() for _ in range(10)]
    later = service.post(delay=4)
    eventually(lambda: service.redis().llen("rq:queue:jobsvc.default") == 10)
    service.redis().flushall()
    service.worker()
    retrying = service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 4})
    running = service.post("NOTE", {"path": str(tmp_path / "notes"), "seconds": 2})
    service.until(running, "PROCESSING")
    assert service.job(retrying)["status"] in ("RETRYING", "COMPLETED")
    service.redis().flushall()
    for job_id in [*waiting, later, retrying, running]:
        service.until(job_id, "COMPLETED", timeout=60)
    assert len((tmp_path / "notes").read_text().splitlines()) == 1


def test_job_runs_though_the_api_died_after_its_202(ground: Ground) -> None:
    """Committed, answered, and not pushed: another process' sweep delivers it."""
    service = ground.service
    ground.valkey.stop()
    job_id = service.post()
    for pid in service.api.tree():
        os.kill(pid, signal.SIGKILL)
    service.api.popen.wait()
    ground.valkey.start()
    service.worker()
    service.api = service.run(*service.api.popen.args)  # type: ignore[misc]
    eventually(service.answers)
    assert service.until(job_id, "COMPLETED", timeout=30)["attempts"] == 1


def test_job_of_a_killed_worker_runs_again(ground: Ground) -> None:
    service = ground.service
    worker = service.worker()
    job_id = service.post(payload={"durationMs": 1500}, retry={"max": 2, "interval": 0})
    service.until(job_id, "PROCESSING")
    died = time.monotonic()
    worker.kill()
    service.worker()
    # The bound of promise 3: lease + sweep + 5 s.
    eventually(
        lambda: service.job(job_id)["attempts"] == 2, ground.LEASE + ground.SWEEP + 5 - (time.monotonic() - died)
    )
    job = service.until(job_id, "COMPLETED")
    assert job["error"]["type"] == "WorkerLost"
    assert [attempt["outcome"] for attempt in service.attempts(job_id)] == ["lost", "completed"]


def test_frozen_worker_overwrites_nothing(ground: Ground) -> None:
    service = ground.service
    frozen = service.worker()
    job_id = service.post(payload={"durationMs": 1000, "result": "mine"}, retry={"max": 3, "interval": 0})
    service.until(job_id, "PROCESSING")
    stopped = frozen.tree()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    service.worker()
    done = service.until(job_id, "COMPLETED", timeout=30)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: "no longer this worker's" in frozen.output)
    assert service.job(job_id) == done
    assert done["attempts"] == 2


def test_unavailable_postgres_is_503_and_recovers(ground: Ground) -> None:
    service = ground.service
    service.worker()
    running = service.post(payload={"durationMs": 2500, "result": "kept"})
    service.until(running, "PROCESSING")
    ground.postgres.stop()
    for reply in (service.client.post("/jobs"), *map(service.client.get, (f"/jobs/{running}", "/metrics"))):
        assert reply.status_code == 503
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert int(reply.headers["Retry-After"]) > 0
        assert "5432" not in reply.text
    assert service.client.get("/readyz").status_code == 503
    assert service.client.get("/healthz").status_code == 200
    time.sleep(ground.LEASE)  # the outage outlasts the lease, which can't be renewed
    ground.postgres.start()
    eventually(lambda: service.client.get("/readyz").status_code == 200)
    assert service.until(service.post(), "COMPLETED", timeout=30)
    job = service.until(running, "COMPLETED", timeout=30)
    assert (job["result"], job["attempts"]) == ("kept", 1)
