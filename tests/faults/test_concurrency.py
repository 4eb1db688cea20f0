"""JOBSVC_CONCURRENCY: handlers that wait run side by side, and what stops one of them stops that one alone."""

import signal
from pathlib import Path

import pytest

from tests.faults.conftest import Ground
from tests.support.service import Service, eventually

AGAIN = {"retry": {"max": 1, "interval": 0}}
ONCE = {"retry": {"max": 0}}


@pytest.fixture
def service(ground: Ground) -> Service:
    """With a worker that runs eight at once, in one process."""
    ground.service.worker(JOBSVC_CONCURRENCY="8", JOBSVC_SHUTDOWN_SECONDS="3")
    return ground.service


def outcomes(service: Service, job_id: str) -> list[tuple[int, str]]:
    return [(attempt["number"], attempt["outcome"]) for attempt in service.attempts(job_id)]


def until(service: Service, path: Path) -> str:
    """Start a job that runs until there is this file."""
    job_id = service.post("UNTIL", {"path": str(path)}, **AGAIN)
    eventually(lambda: service.rq_places(job_id) == ["running"])
    return job_id


def test_waiting_handlers_run_concurrently(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "met"
    folder.mkdir()
    met = [service.post("MEET", {"folder": str(folder), "number": 8}, timeout=20, **ONCE) for _ in range(8)]
    processes = {service.until(job_id, "COMPLETED")["result"] for job_id in met}
    assert len(processes) == 1


def test_timeout_stops_only_its_own_handler(service: Service, tmp_path: Path) -> None:
    other = until(service, tmp_path / "go on")
    loop = service.post("STUBBORN", timeout=1, **ONCE)
    busy = service.post("COMPUTE", {"seconds": 60}, timeout=1, **ONCE)
    for job_id in (loop, busy):
        assert service.until(job_id, "FAILED")["error"]["type"] == "Timeout"
        assert outcomes(service, job_id) == [(1, "timeout")]
    (tmp_path / "go on").touch()
    service.until(other, "COMPLETED")
    assert outcomes(service, other) == [(1, "completed")]


def test_cancel_stops_only_its_own_handler(service: Service, tmp_path: Path) -> None:
    other = until(service, tmp_path / "go on")
    twin = until(service, tmp_path / "never")
    assert service.client.post(f"/jobs/{twin}/cancel").status_code == 202
    service.until(twin, "CANCELLED", timeout=5)
    (tmp_path / "go on").touch()
    service.until(other, "COMPLETED")
    assert outcomes(service, twin) == [(1, "cancelled")]
    assert outcomes(service, other) == [(1, "completed")]


def test_handler_that_ignores_its_cancel_is_killed_with_its_process(service: Service, tmp_path: Path) -> None:
    other = until(service, tmp_path / "go on")
    swallow = service.post("SWALLOW", **ONCE)
    service.until(swallow, "PROCESSING")
    assert service.client.post(f"/jobs/{swallow}/cancel").status_code == 202
    service.until(swallow, "CANCELLED", timeout=5)
    (tmp_path / "go on").touch()
    assert service.until(other, "COMPLETED")["attempts"] == 1
    assert outcomes(service, other) == [(1, "handed-back"), (1, "completed")]


def test_blocked_handler_is_killed_after_the_others_have_finished(service: Service, tmp_path: Path) -> None:
    """10 s after its timeout; what else runs there has JOBSVC_SHUTDOWN_SECONDS, and then goes back uncounted."""
    blocked = service.post("BLOCK_SIGNALS", timeout=1, **ONCE)
    long = until(service, tmp_path / "go on")
    ending = service.post(payload={"durationMs": 12_000}, **AGAIN)
    job = service.until(blocked, "FAILED", timeout=1 + 10 + 3 + 5)
    assert job["error"]["type"] == "Timeout"
    [attempt] = service.attempts(blocked)
    assert (attempt["outcome"], len(attempt["logs"])) == ("timeout", 1)
    (tmp_path / "go on").touch()
    for job_id, history in ((ending, ["completed"]), (long, ["handed-back", "completed"])):
        assert service.until(job_id, "COMPLETED")["attempts"] == 1
        assert [outcome for _, outcome in outcomes(service, job_id)] == history


def test_stopping_worker_returns_unfinished_jobs(ground: Ground, tmp_path: Path) -> None:
    service = ground.service
    worker = service.worker(JOBSVC_CONCURRENCY="8", JOBSVC_SHUTDOWN_SECONDS="1")
    long = [until(service, tmp_path / "go on") for _ in range(4)]
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    for job_id in long:
        assert (service.job(job_id)["status"], outcomes(service, job_id)) == ("PENDING", [(1, "handed-back")])


def test_isolated_handler_has_its_own_process(ground: Ground) -> None:
    service = ground.service
    service.worker()
    shared = {service.until(service.post("WHERE"), "COMPLETED")["result"] for _ in range(3)}
    assert len(shared) == 1
    alone = [service.post("WHERE_ISOLATED", {"fails": 2}, retry={"max": 2, "interval": 0}) for _ in range(2)]
    for job_id in alone:
        shared.add(service.until(job_id, "COMPLETED")["result"])
        shared |= {int(one["error"]["message"].split()[1]) for one in service.attempts(job_id) if one["error"]}
    assert len(shared) == 1 + 2 * 3


def test_crashing_isolated_handler_affects_no_other_job(ground: Ground) -> None:
    service = ground.service
    service.worker()
    crash = {"type": "WHERE_ISOLATED", "payload": {"crashes": 1}, **AGAIN}
    reply = service.client.post("/jobs/batch", json={"jobs": [*[{}] * 20, crash, *[{}] * 20, crash, *[{}] * 20]})
    job_ids = reply.json()["jobIds"]
    crashers = {job_ids.pop(41), job_ids.pop(20)}
    for job_id in [*crashers, *job_ids]:
        assert service.until(job_id, "COMPLETED")["attempts"] == 1 + (job_id in crashers)
    lost = ground.sql("SELECT job_id, outcome FROM attempts")
    assert sorted(lost) == sorted((job_id, "lost") for job_id in crashers)
