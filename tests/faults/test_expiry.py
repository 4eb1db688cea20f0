"""From outside: a job that started in time is never `Expired`, however its attempts end (see tests/integration)."""

import signal
from collections.abc import Iterator

import pytest

from tests.support.service import Process, Service, eventually

KINDS = {"pool": ("pool", {}), "threads": ("pool", {"JOBSVC_CONCURRENCY": "3"}), "stock": ("stock", {})}
EXPIRY = 1.0


@pytest.fixture(scope="module")
def shared(apart: dict[str, str]) -> Iterator[Service]:
    service = Service({**apart, "JOBSVC_LEASE_SECONDS": "2", "JOBSVC_SWEEP_SECONDS": "0.5"})
    yield service
    service.close()


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    yield shared
    shared.kill_workers()
    shared.sql("DELETE FROM jobs")


def worker(service: Service, kind: str) -> Process:
    name, env = KINDS[kind]
    return service.worker(name, **env, JOBSVC_SHUTDOWN_SECONDS="0.3")


def check_after_expiry(service: Service, job_id: str, status: str, error: str | None) -> None:
    """Check how the job waits once its expiry has been over for some sweeps."""
    over = "SELECT now() > created_at + interval '2.5 s' FROM jobs WHERE id = %s"
    eventually(lambda: service.sql(over, job_id) == [(True,)])
    job = service.job(job_id)
    assert (job["status"], job["error"] and job["error"]["type"]) == (status, error), job
    assert job["expiresAt"] is not None


@pytest.mark.parametrize("kind", KINDS)
def test_started_job_does_not_expire(service: Service, kind: str) -> None:
    process = worker(service, kind)
    later = {"max": 1, "interval": 2}
    failed = service.post(payload={"failAttempts": 1}, expiresIn=EXPIRY, retry=later)
    overdue = service.post("CHECK_CANCEL", timeout=0.1, expiresIn=EXPIRY + 1, retry=later)
    snoozed = service.post("SNOOZE", {"times": 1, "seconds": 2}, expiresIn=EXPIRY + 1)
    assert service.until(failed, "COMPLETED", "FAILED")["status"] == "COMPLETED"
    assert service.until(snoozed, "COMPLETED", "FAILED")["status"] == "COMPLETED"
    assert service.until(overdue, "FAILED")["error"]["type"] == "Timeout"
    assert [one["outcome"] for one in service.attempts(overdue)] == ["timeout", "timeout"]

    killed = service.post("CHECK_CANCEL", expiresIn=EXPIRY, retry={"max": 1, "interval": 60})
    service.until(killed, "PROCESSING")
    process.kill()
    service.until(killed, "RETRYING")
    check_after_expiry(service, killed, "RETRYING", "WorkerLost")


@pytest.mark.parametrize("kind", ["pool", "threads"])
def test_returned_job_does_not_expire(service: Service, kind: str) -> None:
    process = worker(service, kind)
    job_id = service.post("CHECK_CANCEL", expiresIn=EXPIRY)
    service.until(job_id, "PROCESSING")
    process.signal(signal.SIGTERM)
    process.wait()
    check_after_expiry(service, job_id, "PENDING", None)


def test_prefetched_jobs_expire(service: Service) -> None:
    """The slow job has the worker to itself: what it had taken with it goes back, and isn't started in time."""
    worker(service, "pool")
    for job_id in [service.post() for _ in range(30)]:  # so that it takes many at a time
        service.until(job_id, "COMPLETED")
    service.post("CHECK_CANCEL")
    for job_id in [service.post(expiresIn=EXPIRY) for _ in range(30)]:
        job = service.until(job_id, "FAILED")
        assert (job["error"]["type"], job["attempts"], service.attempts(job_id)) == ("Expired", 0, [])
        assert job["expiresAt"] is not None


def test_job_of_a_dead_child_process_does_not_expire(service: Service) -> None:
    worker(service, "pool")
    job_id = service.post("CRASH", expiresIn=EXPIRY, retry={"max": 1, "interval": 60})
    service.until(job_id, "RETRYING")
    check_after_expiry(service, job_id, "RETRYING", "WorkerLost")
