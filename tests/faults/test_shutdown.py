"""Promise 6: a stopping worker finishes the jobs that it can, and returns the others uncounted."""

import contextlib
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg2
import pytest

from tests.faults.conftest import Ground
from tests.support.service import Service, eventually

LONG = {"durationMs": 60_000}


@pytest.fixture
def service(ground: Ground) -> Service:
    return ground.service


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_job_that_finishes_in_time_is_stored_and_no_other_starts(service: Service, number: signal.Signals) -> None:
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="20")
    running, waiting = service.post(payload={"durationMs": 1500}), service.post()
    service.until(running, "PROCESSING")
    worker.signal(number)
    assert worker.wait(20) == 0
    assert (service.job(running)["status"], service.job(waiting)["status"]) == ("COMPLETED", "PENDING")
    eventually(lambda: not worker.tree())
    service.worker()
    service.until(waiting, "COMPLETED")


def test_longer_job_is_returned_uncounted(service: Service) -> None:
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


def test_timeout_before_the_shutdown_limit_still_applies(service: Service) -> None:
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="20")
    job_id = service.post(payload=LONG, retry={"max": 0}, timeout=1.5)
    eventually(lambda: service.rq_places(job_id) == ["running"])  # else an unstarted job is returned
    worker.signal(signal.SIGTERM)
    assert service.until(job_id, "FAILED", timeout=10)["error"]["type"] == "Timeout"
    assert worker.wait(10) == 0


@pytest.mark.parametrize("kind", ["STUBBORN", "BLOCK_SIGNALS"])
def test_job_that_ignores_the_stop_is_returned(service: Service, kind: str) -> None:
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="0")
    job_id = service.post(kind, retry={"max": 0}, timeout=600)
    eventually(lambda: service.rq_places(job_id) == ["running"])
    worker.signal(signal.SIGTERM)
    assert service.until(job_id, "PENDING", timeout=20)["attempts"] == 0
    [attempt] = service.attempts(job_id)
    assert len(attempt["logs"]) == (kind == "BLOCK_SIGNALS")
    assert worker.wait(20) == 0


def test_second_signal_ends_at_once_and_loses_nothing(ground: Ground) -> None:
    service = ground.service
    worker = service.worker(JOBSVC_SHUTDOWN_SECONDS="60")
    job_id = service.post(payload={"durationMs": 8000}, retry={"max": 1, "interval": 0})
    service.until(job_id, "PROCESSING")
    worker.signal(signal.SIGTERM)
    time.sleep(2)  # RQ takes a second signal within a second for the first one
    for _ in range(10):  # as one that the terminal and the pool send, and an impatient finger
        with contextlib.suppress(ProcessLookupError):
            worker.signal(signal.SIGTERM)
        time.sleep(0.002)
    worker.wait(5)
    eventually(lambda: not worker.tree())
    service.worker()
    assert service.until(job_id, "COMPLETED", timeout=30)["attempts"] == 1, worker.output
    assert [attempt["outcome"] for attempt in service.attempts(job_id)] == ["handed-back", "completed"]


def test_rolling_restart_under_load_loses_and_repeats_nothing(service: Service, tmp_path: Path) -> None:
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


POSTS = 6
"""At once, each with a connection to Postgres; the relay needs some of the 10, too."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_api_answers_accepted_requests(ground: Ground, number: signal.Signals) -> None:
    service = ground.service
    with contextlib.closing(psycopg2.connect(ground.env["DATABASE_URL"])) as holder, ThreadPoolExecutor(POSTS) as pool:
        holder.cursor().execute("LOCK TABLE jobs IN EXCLUSIVE MODE")  # holds up every INSERT
        # Each with a key, which keeps them from sharing an INSERT.
        bodies = [{"uniqueKey": str(number)} for number in range(POSTS)]
        replies = [pool.submit(httpx.post, f"{service.url}/jobs", json=body, timeout=30) for body in bodies]
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO jobs%'"
        )
        eventually(lambda: ground.sql(waiting) == [(POSTS,)])
        service.api.signal(number)
        eventually(lambda: not is_reached(service))
        holder.rollback()
        accepted = [reply.result().json()["jobId"] for reply in replies]
    service.api.wait(20)
    assert [reply.result().status_code for reply in replies] == [202] * POSTS
    stored = {str(job_id) for (job_id,) in ground.sql("SELECT id FROM jobs")}
    assert stored == set(accepted)
    service.worker()
    eventually(lambda: {ground.status(job_id) for job_id in accepted} == {"COMPLETED"}, 40)


def is_reached(service: Service) -> bool:
    try:
        httpx.get(f"{service.url}/healthz", timeout=1)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_api_stopped_under_load_loses_no_accepted_job(ground: Ground, number: signal.Signals) -> None:
    service = ground.service
    accepted: list[str] = []
    odd: list[str] = []

    def post() -> None:
        while True:
            try:
                reply = httpx.post(f"{service.url}/jobs", json={}, timeout=30)
            except httpx.ConnectError:
                return
            except httpx.TransportError as error:
                odd.append(repr(error))
                return
            assert reply.status_code == 202, reply.text
            accepted.append(reply.json()["jobId"])

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(post) for _ in range(8)]
        eventually(lambda: len(accepted) > 100)
        service.api.signal(number)
        service.api.wait(20)
        for client in clients:
            client.result()
    stored = {str(job_id) for (job_id,) in ground.sql("SELECT id FROM jobs")}
    assert set(accepted) <= stored
    # Only connections that had just been made may be closed unanswered.
    assert len(stored - set(accepted)) <= len(odd) <= len(clients)
    assert {error.partition("(")[0] for error in odd} <= {"RemoteProtocolError", "ReadError"}
    service.worker()
    eventually(lambda: ground.sql("SELECT DISTINCT status FROM jobs") == [("COMPLETED",)], 60)
