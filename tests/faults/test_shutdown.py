"""Promise 6: a worker that is told to stop finishes what it can, and hands the rest back uncounted."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import Ground
from tests.support import Service, eventually

LONG = {"durationMs": 60_000}


@pytest.fixture
def service(ground: Ground) -> Service:
    return ground.service


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_ends_in_time_is_finished_and_no_other_is_begun(service: Service, number: signal.Signals) -> None:
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="20")
    running, waiting = service.post(payload={"durationMs": 1500}), service.post()
    service.until(running, "PROCESSING")
    worker.signal(number)
    assert worker.wait(20) == 0
    assert (service.job(running)["status"], service.job(waiting)["status"]) == ("COMPLETED", "PENDING")
    eventually(lambda: not worker.tree())
    service.worker()
    service.until(waiting, "COMPLETED")


def test_a_job_that_takes_longer_is_handed_back_uncounted(service: Service) -> None:
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="1")
    job_id = service.post(payload={"durationMs": 4000}, retry={"max": 0})
    service.until(job_id, "PROCESSING")
    worker.signal(signal.SIGTERM)
    back = service.until(job_id, "PENDING", timeout=5)
    assert (back["attempts"], back["error"]) == (0, None)
    assert worker.wait(10) == 0
    service.worker()
    job = service.until(job_id, "COMPLETED")
    assert job["attempts"] == 1
    attempts = service.attempts(job_id)
    assert [(attempt["number"], attempt["outcome"]) for attempt in attempts] == [(1, "handed-back"), (1, "completed")]


def test_a_job_whose_own_timeout_comes_first_is_timed_out(service: Service) -> None:
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="20")
    job_id = service.post(payload=LONG, retry={"max": 0}, timeout=1.5)
    service.until(job_id, "PROCESSING")
    worker.signal(signal.SIGTERM)
    assert service.until(job_id, "FAILED", timeout=10)["error"]["type"] == "Timeout"
    assert worker.wait(10) == 0


@pytest.mark.parametrize("kind", ["STUBBORN", "DEAF"])
def test_a_job_that_does_not_listen_is_handed_back_too(service: Service, kind: str) -> None:
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="0")
    job_id = service.post(kind, retry={"max": 0}, timeout=600)
    service.until(job_id, "PROCESSING")
    worker.signal(signal.SIGTERM)
    assert service.until(job_id, "PENDING", timeout=20)["attempts"] == 0
    [attempt] = service.attempts(job_id)
    assert len(attempt["logs"]) == (kind == "DEAF")
    assert worker.wait(20) == 0


def test_a_second_signal_does_not_wait_and_loses_nothing(ground: Ground) -> None:
    service = ground.service
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="60")
    job_id = service.post(payload={"durationMs": 8000}, retry={"max": 1, "interval": 0})
    service.until(job_id, "PROCESSING")
    worker.signal(signal.SIGTERM)
    time.sleep(2)  # RQ takes a second signal within a second for the first one
    worker.signal(signal.SIGTERM)
    worker.wait(5)
    eventually(lambda: not worker.tree())
    service.worker()
    assert service.until(job_id, "COMPLETED", timeout=30)["attempts"] == 2, worker.output


def test_workers_rolled_under_load_lose_and_double_nothing(service: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    posted: list[str] = []
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="20")
    for _ in range(4):
        posted += [service.post("NOTE", {"path": str(notes), "seconds": 0.05}) for _ in range(15)]
        successor = service.worker(JOBSVC_SHUTDOWN_SECONDS="20")
        worker.signal(signal.SIGTERM)
        assert worker.wait(30) == 0
        worker = successor
    for job_id in posted:
        assert service.until(job_id, "COMPLETED", timeout=60)["attempts"] == 1
    runs = Counter(line.split()[0] for line in notes.read_text().splitlines())
    assert runs == Counter(posted)
