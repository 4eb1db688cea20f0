"""Workers that run many async attempts on one loop, beside sync ones on threads: how many, and how they end."""

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Ground
from tests.faults.test_process_deaths import child_of
from tests.support.service import Service, eventually

HANDLERS = "tests.support.handlers.asynchronous,tests.support.handlers.basic"
AGAIN = {"retry": {"max": 1, "interval": 0}}
ONCE = {"retry": {"max": 0}}


@pytest.fixture
def ground(tmp_path: Path) -> Any:
    ground = Ground(tmp_path, JOBSVC_HANDLERS=HANDLERS)
    yield ground
    ground.stop()


def post(service: Service, count: int, type_: str, payload: dict[str, Any], **options: Any) -> list[str]:
    bodies = [{"type": type_, "payload": payload, **options}] * min(count, 1000)
    job_ids: list[str] = service.client.post("/jobs/batch", json={"jobs": bodies}).json()["jobIds"]
    return job_ids


def counts(ground: Ground, type_: str) -> dict[str, int]:
    rows = ground.sql("SELECT status, count(*) FROM jobs WHERE type = %s GROUP BY status", type_)
    return {str(status): int(count) for status, count in rows}


def outcomes(service: Service, job_id: str) -> list[str]:
    return [attempt["outcome"] for attempt in service.attempts(job_id)]


def all_running(ground: Ground, job_ids: list[str]) -> None:
    """Wait until the handlers of these jobs were called."""
    for job_id in job_ids:
        eventually(lambda job_id=job_id: ground.service.rq_places(job_id) == ["running"])  # type: ignore[misc]


@pytest.mark.parametrize("number", [300, 1000])
def test_so_many_sleepers_run_at_once(ground: Ground, number: int) -> None:
    """Longer than a lease, so that all are renewed."""
    ground.service.worker(JOBSVC_CONCURRENCY=str(number))
    post(ground.service, number, "ASYNC_MEET", {"number": number, "seconds": 4}, timeout=60, **ONCE)
    eventually(lambda: counts(ground, "ASYNC_MEET") == {"COMPLETED": number}, 45)
    assert ground.sql("SELECT DISTINCT result::int FROM jobs WHERE type = 'ASYNC_MEET'") == [(number,)]
    assert ground.sql("SELECT DISTINCT attempts, fence FROM jobs WHERE type = 'ASYNC_MEET'") == [(1, 1)]


def test_no_more_jobs_run_at_once_than_allowed(ground: Ground, tmp_path: Path) -> None:
    """Of either kind."""
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="6")
    gate = str(tmp_path / "go on")
    post(service, 5, "UNTIL", {"path": gate}, **ONCE)
    post(service, 9, "ASYNC_SLEEP", {"path": gate}, **ONCE)
    post(service, 5, "UNTIL", {"path": gate}, **ONCE)

    def running() -> int:
        return counts(ground, "UNTIL").get("PROCESSING", 0) + counts(ground, "ASYNC_SLEEP").get("PROCESSING", 0)

    eventually(lambda: running() == 6)
    assert counts(ground, "ASYNC_SLEEP").get("PROCESSING", 0) == 1
    Path(gate).touch()
    eventually(lambda: counts(ground, "UNTIL") == {"COMPLETED": 10})
    eventually(lambda: counts(ground, "ASYNC_SLEEP") == {"COMPLETED": 9})


@pytest.mark.parametrize("concurrency", [1, 3])
def test_kinds_are_counted_together(ground: Ground, tmp_path: Path, concurrency: int) -> None:
    service, path = ground.service, tmp_path / "spans"
    service.worker(JOBSVC_CONCURRENCY=str(concurrency))
    for type_ in ("SPAN", "ASYNC_SPAN") * 10:
        service.post(type_, {"path": str(path), "seconds": 0.05}, **ONCE)
    eventually(lambda: all(counts(ground, type_) == {"COMPLETED": 10} for type_ in ("SPAN", "ASYNC_SPAN")))
    at_once = list(itertools.accumulate(1 if sign == "+" else -1 for sign in path.read_text()))
    assert max(at_once) == concurrency


def test_sync_jobs_without_a_thread_hold_up_no_async_job(ground: Ground, tmp_path: Path) -> None:
    """They are not started, so that other workers can run them."""
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="300")
    gate = str(tmp_path / "go on")
    post(service, 200, "UNTIL", {"path": gate}, timeout=120, **ONCE)
    eventually(lambda: counts(ground, "UNTIL").get("PROCESSING") == 128)
    asleep = post(service, 100, "ASYNC_SLEEP", {"seconds": 0.1}, **ONCE)
    eventually(lambda: counts(ground, "ASYNC_SLEEP") == {"COMPLETED": 100})
    assert len(asleep) == 100
    assert counts(ground, "UNTIL") == {"PROCESSING": 128, "PENDING": 72}
    other = service.worker(JOBSVC_CONCURRENCY="100")
    eventually(lambda: counts(ground, "UNTIL") == {"PROCESSING": 200})
    assert service.alive(other)
    Path(gate).touch()
    eventually(lambda: counts(ground, "UNTIL") == {"COMPLETED": 200})
    assert ground.sql("SELECT DISTINCT attempts, fence FROM jobs WHERE type = 'UNTIL'") == [(1, 1)]


def test_withheld_sync_jobs_start_once_threads_are_free(ground: Ground, tmp_path: Path) -> None:
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="300")
    post(service, 500, "TEST_JOB", {"durationMs": 300}, **ONCE)
    post(service, 500, "ASYNC_SLEEP", {"seconds": 0.3}, **ONCE)
    eventually(lambda: counts(ground, "ASYNC_SLEEP") == {"COMPLETED": 500}, 30)
    eventually(lambda: counts(ground, "TEST_JOB") == {"COMPLETED": 500}, 30)
    assert ground.sql("SELECT DISTINCT attempts, fence FROM jobs") == [(1, 1)]


def test_handler_that_swallows_its_timeout_is_ended_with_its_process(ground: Ground, tmp_path: Path) -> None:
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="40")
    others = post(service, 10, "ASYNC_SLEEP", {"path": str(tmp_path / "go on")}, **ONCE)
    all_running(ground, others)
    swallow = service.post("ASYNC_SWALLOW", timeout=1, **ONCE)
    job = service.until(swallow, "FAILED", timeout=1 + 10 + 5)
    assert job["error"]["type"] == "Timeout"
    [attempt] = service.attempts(swallow)
    assert (attempt["outcome"], [line["message"] for line in attempt["logs"]]) == ("timeout", ["never stops"])
    (tmp_path / "go on").touch()
    for job_id in others:
        assert service.until(job_id, "COMPLETED")["attempts"] == 1
        assert outcomes(service, job_id) == ["handed-back", "completed"]


def test_handler_that_blocks_the_loop_is_charged_alone(ground: Ground, tmp_path: Path) -> None:
    """Its neighbours are returned, also those whose own time is over by then; a sync one is not interrupted before."""
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="40")
    gate = str(tmp_path / "go on")
    long = post(service, 5, "ASYNC_SLEEP", {"path": gate}, **ONCE)
    short = post(service, 5, "ASYNC_SLEEP", {"path": gate}, timeout=4, **ONCE)
    all_running(ground, [*long, *short])
    block = service.post("ASYNC_BLOCK", {"seconds": 100}, timeout=1, **ONCE)
    job = service.until(block, "FAILED", timeout=1 + 10 + 5)
    assert job["error"]["type"] == "Timeout"
    assert [line["message"] for line in service.attempts(block)[0]["logs"]] == ["blocks"]
    Path(gate).touch()
    for job_id in (*long, *short):
        assert service.until(job_id, "COMPLETED")["attempts"] == 1
        assert outcomes(service, job_id) == ["handed-back", "completed"]


def test_blocker_whose_neighbour_reaches_its_limit_first_is_charged(ground: Ground, tmp_path: Path) -> None:
    """Both are over their time when the process of the neighbour, which was not interrupted, has to be ended."""
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="40")
    gate = str(tmp_path / "go on")
    [first] = post(service, 1, "ASYNC_SLEEP", {"path": gate}, timeout=2, **ONCE)
    all_running(ground, [first])
    block = service.post("ASYNC_BLOCK", {"seconds": 100}, timeout=6, **ONCE)
    assert service.until(block, "FAILED", timeout=2 + 10 + 5)["error"]["type"] == "Timeout"
    Path(gate).touch()
    assert service.until(first, "COMPLETED")["attempts"] == 1
    assert outcomes(service, first) == ["handed-back", "completed"]


@pytest.mark.parametrize(("type_", "payload"), [("ASYNC_SWALLOW", {}), ("ASYNC_BLOCK", {"seconds": 100})])
def test_handler_that_does_not_stop_is_cancelled_in_time(
    ground: Ground, tmp_path: Path, type_: str, payload: dict[str, Any]
) -> None:
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="40")
    others = post(service, 3, "ASYNC_SLEEP", {"path": str(tmp_path / "go on")}, **ONCE)
    all_running(ground, others)
    [job_id] = post(service, 1, type_, payload, **ONCE)
    all_running(ground, [job_id])
    assert service.client.post(f"/jobs/{job_id}/cancel").status_code == 202
    service.until(job_id, "CANCELLED", timeout=6)
    (tmp_path / "go on").touch()
    for other in others:
        assert service.until(other, "COMPLETED")["attempts"] == 1
        assert outcomes(service, other) == ["handed-back", "completed"]


def test_job_whose_loop_is_blocked_by_another_is_cancelled_in_time(ground: Ground, tmp_path: Path) -> None:
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="40")
    victim = service.post("ASYNC_SLEEP", {"seconds": 600}, **ONCE)
    all_running(ground, [victim])
    block = service.post("ASYNC_BLOCK", {"seconds": 8}, **ONCE)
    all_running(ground, [block])
    service.client.post(f"/jobs/{victim}/cancel")
    service.until(victim, "CANCELLED", timeout=6)
    assert service.until(block, "COMPLETED", timeout=20)["attempts"] == 1
    assert outcomes(service, block) == ["handed-back", "completed"]


@pytest.mark.parametrize("concurrency", ["1", "40"])
def test_stopping_worker_cancels_its_handlers_and_returns_them(
    ground: Ground, tmp_path: Path, concurrency: str
) -> None:
    service = ground.service
    worker = service.worker(JOBSVC_CONCURRENCY=concurrency, JOBSVC_SHUTDOWN_SECONDS="1")
    job_ids = []
    for number in range(1 if concurrency == "1" else 5):
        job_ids += post(service, 1, "ASYNC_CLEANUP", {"path": str(tmp_path / str(number))}, **ONCE)
    stubborn = [] if concurrency == "1" else post(service, 1, "ASYNC_SWALLOW", {}, **ONCE)
    all_running(ground, [*job_ids, *stubborn])
    worker.signal(signal.SIGTERM)
    assert worker.wait(1 + 3 + 5) == 0
    for number, job_id in enumerate(job_ids):
        assert (tmp_path / str(number)).read_text() == "CancelledError False"
        assert (service.job(job_id)["status"], outcomes(service, job_id)) == ("PENDING", ["handed-back"])
    for job_id in stubborn:
        assert (service.job(job_id)["status"], outcomes(service, job_id)) == ("PENDING", ["handed-back"])


def test_worker_whose_loop_is_blocked_stops_in_time(ground: Ground) -> None:
    service = ground.service
    worker = service.worker(JOBSVC_CONCURRENCY="1000", JOBSVC_SHUTDOWN_SECONDS="1")
    others = post(service, 400, "ASYNC_SLEEP", {"seconds": 600}, **ONCE)
    eventually(lambda: counts(ground, "ASYNC_SLEEP").get("PROCESSING") == 400)
    all_running(ground, others[-3:])
    [block] = post(service, 1, "ASYNC_BLOCK", {"seconds": 100}, **ONCE)
    all_running(ground, [block])
    worker.signal(signal.SIGTERM)
    assert worker.wait(1 + 3 + 5) == 0
    assert counts(ground, "ASYNC_SLEEP") == {"PENDING": 400}
    assert outcomes(service, block) == ["handed-back"]


def test_attempts_of_a_killed_child_process_are_lost_and_retried(ground: Ground) -> None:
    service = ground.service
    worker = service.worker(JOBSVC_CONCURRENCY="40")
    job_ids = post(service, 20, "ASYNC_SLEEP", {"seconds": 5}, **AGAIN)
    all_running(ground, job_ids)
    _, child = child_of(worker)
    os.kill(child.pid, signal.SIGKILL)
    for job_id in job_ids:
        assert service.until(job_id, "COMPLETED")["attempts"] == 2
        assert outcomes(service, job_id) == ["lost", "completed"]


def test_handler_that_does_not_stop_is_ended_under_a_stock_worker(ground: Ground) -> None:
    service = ground.service
    service.worker("stock")
    for type_, payload in (("ASYNC_SWALLOW", {}), ("ASYNC_BLOCK", {"seconds": 100})):
        job_id = service.post(type_, payload, timeout=1, **ONCE)
        job = service.until(job_id, "FAILED", timeout=1 + 10 + 8)
        assert (job["error"]["type"], outcomes(service, job_id)) == ("Timeout", ["timeout"])


def test_isolated_handler_that_does_not_stop_affects_no_other(ground: Ground, tmp_path: Path) -> None:
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="8")
    other = service.post("ASYNC_SLEEP", {"path": str(tmp_path / "go on")}, **ONCE)
    all_running(ground, [other])
    block = service.post("ASYNC_BLOCK_ISOLATED", {"seconds": 100}, timeout=1, **ONCE)
    assert service.until(block, "FAILED", timeout=1 + 10 + 5)["error"]["type"] == "Timeout"
    (tmp_path / "go on").touch()
    service.until(other, "COMPLETED")
    assert outcomes(service, other) == ["completed"]
