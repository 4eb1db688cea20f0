"""Promise 3: a running attempt is left alone while it lives, and taken over in time when it was lost."""

import time
from datetime import datetime, timedelta

import pytest

from tests.faults.conftest import Ground, kill
from tests.support.service import eventually

SLEEPS = {"durationMs": 60_000}


def taken_over(ground: Ground, job_id: str, since: float, bound: float, status: str) -> None:
    """The job gets this status within `bound` seconds of `since`, by Postgres itself: no API may be left to ask."""
    eventually(lambda: ground.status(job_id) == status, bound - (time.monotonic() - since))


def running(ground: Ground, **body: object) -> str:
    job_id = ground.service.post(**{"payload": SLEEPS, "retry": {"max": 1, "interval": 600}, **body})
    ground.service.until(job_id, "PROCESSING")
    return job_id


def test_computing_and_sleeping_handlers_keep_their_leases(ground: Ground) -> None:
    service = ground.service
    service.worker(JOBSVC_WORKERS="2")
    four_leases = 4 * ground.LEASE
    busy = service.post("COMPUTE", {"seconds": four_leases}, retry={"max": 1, "interval": 0})
    asleep = service.post(payload={"durationMs": int(four_leases * 1000)}, retry={"max": 1, "interval": 0})
    for job_id in (busy, asleep):
        job = service.until(job_id, "COMPLETED", timeout=60)
        assert (job["attempts"], job["error"]) == (1, None)
        took = datetime.fromisoformat(job["finishedAt"]) - datetime.fromisoformat(job["startedAt"])
        assert took >= timedelta(seconds=four_leases)


@pytest.mark.parametrize(("retries", "status"), [(1, "RETRYING"), (0, "FAILED")])
def test_lost_attempt_is_recovered_by_the_api_alone(ground: Ground, retries: int, status: str) -> None:
    worker = ground.service.worker()
    job_id = running(ground, retry={"max": retries, "interval": 600})
    died = time.monotonic()
    kill(worker)
    taken_over(ground, job_id, died, ground.bound, status)
    job = ground.service.job(job_id)
    assert (job["error"]["type"], job["attempts"]) == ("WorkerLost", 1)
    assert [attempt["outcome"] for attempt in ground.service.attempts(job_id)] == ["lost"]


def test_lost_attempt_is_recovered_by_another_worker_alone(ground: Ground) -> None:
    service = ground.service
    worker = service.worker()
    job_id = running(ground, retry={"max": 1, "interval": 0})
    service.worker()
    died = time.monotonic()
    kill(service.api)
    kill(worker)
    started_again = "SELECT 1 FROM jobs WHERE id = %s AND status = 'PROCESSING' AND attempts = 2"
    eventually(lambda: ground.sql(started_again, job_id), ground.bound - (time.monotonic() - died))
    assert ground.sql("SELECT outcome, error_type FROM attempts WHERE job_id = %s", job_id) == [("lost", "WorkerLost")]


def test_lost_attempt_is_recovered_after_a_full_restart(ground: Ground) -> None:
    """No lease lapses before Postgres has been up for a lease's time, so the time counts from its start."""
    service = ground.service
    worker = service.worker()
    job_id = running(ground, retry={"max": 1, "interval": 0})
    waiting = [service.post() for _ in range(5)]
    for what in (ground.postgres, ground.valkey, service.api, worker):
        kill(what)
    ground.valkey.start()
    ground.postgres.start()
    back = time.monotonic()
    service.api = service.run(*service.api.popen.args)  # type: ignore[misc]
    service.worker()
    started_again = "SELECT 1 FROM jobs WHERE id = %s AND status = 'PROCESSING' AND attempts = 2"
    eventually(lambda: ground.sql(started_again, job_id), ground.bound - (time.monotonic() - back))
    service.worker()
    eventually(service.answers)
    for one in waiting:
        assert service.until(one, "COMPLETED", timeout=30)["attempts"] == 1


def test_lost_attempt_is_retried_at_its_interval(ground: Ground) -> None:
    service = ground.service
    worker = service.worker()
    job_id = running(ground, payload={"durationMs": 1500}, retry={"max": 2, "interval": [2, 600]})
    kill(worker)
    service.worker()
    service.until(job_id, "COMPLETED", timeout=30)
    lost, completed = service.attempts(job_id)
    assert (lost["outcome"], completed["outcome"]) == ("lost", "completed")
    waited = datetime.fromisoformat(completed["startedAt"]) - datetime.fromisoformat(lost["finishedAt"])
    assert timedelta(seconds=2) <= waited < timedelta(seconds=2 + ground.bound)
