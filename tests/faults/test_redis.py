"""Promise 2: without Redis jobs are accepted and running ones finish; all others run once it is available again."""

import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.conftest import Ground
from tests.support.service import POOL, Process, Service, eventually

# A worker that checks its running job every second, where RQ's does every 30.
BRISK = """
from jobsvc import worker
from jobsvc.worker import pool

class Brisk(worker.JobsvcWorker):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, job_monitoring_interval=1, **kwargs)

pool.JobsvcWorker = Brisk
pool.main()
"""

UP = {"status": "ok", "postgres": "up", "redis": "up"}
DOWN = {**UP, "redis": "down"}


@pytest.fixture
def service(ground: Ground) -> Service:
    return ground.service


@contextmanager
def frozen(ground: Ground) -> Iterator[None]:
    """Within, Redis takes connections, and answers nothing."""
    pid = ground.valkey._state()["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def full(ground: Ground) -> Iterator[None]:
    """Within, Redis answers, and takes no writes."""
    ground.service.redis().config_set("maxmemory", 1)
    yield
    ground.service.redis().config_set("maxmemory", 0)


@contextmanager
def stopped(ground: Ground) -> Iterator[None]:
    """Within, there is no Redis."""
    ground.valkey.stop()
    yield
    ground.valkey.start()


OUTAGES: dict[str, Any] = {"frozen": frozen, "full": full, "stopped": stopped}


def brisk(service: Service) -> Process:
    worker = service.run(sys.executable, "-c", BRISK, env={"JOBSVC_WORKERS": "1", "JOBSVC_SHUTDOWN_SECONDS": "20"})
    eventually(lambda: service.redis().smembers("rq:workers"))
    return worker


def rq_worker(pool: Process) -> int:
    """The process of the pool's one worker, which is the one with children: RQ's scheduler, and the job's."""
    [pid] = eventually(lambda: [one.pid for one in psutil.Process(pool.popen.pid).children() if one.children()])
    return pid


def ready(service: Service) -> dict[str, str]:
    reply = httpx.get(f"{service.url}/readyz", timeout=4)  # the request must not wait for ever
    assert reply.status_code == 200
    return dict(reply.json())


def note(service: Service, path: Path, seconds: float = 0, **body: Any) -> str:
    return service.post("NOTE", {"path": str(path), "seconds": seconds}, **body)


def assert_each_ran_once(path: Path, posted: list[str]) -> None:
    assert Counter(line.split()[0] for line in path.read_text().splitlines()) == Counter(posted)


def said(process: Process, what: str) -> list[str]:
    """Return the writer of each line that contains the text."""
    return [line.split()[2] for line in process.output.splitlines() if f"Redis: {what}" in line]


def assert_no_fuss(service: Service) -> None:
    """Check that each process logged begin and end of the outage at most once, and RQ nothing."""
    eventually(lambda: said(service.api, "available again"))
    assert said(service.api, "unavailable") == said(service.api, "available again") == ["jobsvc.relay:"]
    for process in service.processes:
        for what in ("unavailable", "available again"):
            assert max(Counter(said(process, what)).values(), default=0) <= 1, process.output
        lines = [line for line in process.output.splitlines() if "had expired; re-acquired" not in line]  # true, once
        assert not [line for line in lines if " rq." in line[:25] or "Traceback" in line], process.output


@pytest.mark.parametrize("outage", OUTAGES)
def test_running_job_survives_an_outage(ground: Ground, tmp_path: Path, outage: str) -> None:
    """So does its worker, though heartbeats fail; jobs posted during the outage run afterwards, each once."""
    service, notes = ground.service, tmp_path / "notes"
    pool = brisk(service)
    running = note(service, notes, 4)
    service.until(running, "PROCESSING")
    before = rq_worker(pool)
    assert ready(service) == UP
    with OUTAGES[outage](ground):
        began = time.monotonic()
        posted = [note(service, notes) for _ in range(20)]
        assert time.monotonic() - began < 5  # no waiting for a timeout on each
        assert ready(service) == DOWN
        assert service.until(running, "COMPLETED")["attempts"] == 1
        eventually(lambda: said(pool, "unavailable"))
        assert {service.job(job_id)["status"] for job_id in posted} == {"PENDING"}
    for job_id in posted:
        assert service.until(job_id, "COMPLETED", timeout=60)["attempts"] == 1
    assert rq_worker(pool) == before
    assert ready(service) == UP
    assert_each_ran_once(notes, [running, *posted])
    assert_no_fuss(service)


def test_all_jobs_run_on_time_after_redis_restarted_empty(ground: Ground, tmp_path: Path) -> None:
    service, notes = ground.service, tmp_path / "notes"
    service.worker()
    failing = service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 5})
    next_attempt = service.until(failing, "RETRYING")["nextAttemptAt"]
    delayed = note(service, notes, delay=6)
    running = note(service, notes, 2)
    service.until(running, "PROCESSING")
    waiting = [note(service, notes) for _ in range(5)]
    with stopped(ground):
        waiting += [note(service, notes) for _ in range(5)]
        shutil.rmtree(ground.valkey.data / "appendonlydir")
    for job_id in [running, *waiting, delayed, failing]:
        service.until(job_id, "COMPLETED", timeout=60)
    assert_each_ran_once(notes, [running, *waiting, delayed])
    for job_id, due in ((failing, next_attempt), (delayed, service.job(delayed)["runAt"])):
        assert datetime.fromisoformat(service.job(job_id)["startedAt"]) >= datetime.fromisoformat(due)
    assert_no_fuss(service)


def test_worker_started_before_redis_waits_for_it(ground: Ground) -> None:
    service = ground.service
    with stopped(ground):
        pool = service.run(*POOL, env={"JOBSVC_WORKERS": "1"})
        eventually(lambda: "jobsvc.worker:" in said(pool, "unavailable"))
        job_id = service.post()
        eventually(lambda: said(service.api, "unavailable"))
    service.until(job_id, "COMPLETED", timeout=30)
    assert_no_fuss(service)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_waiting_for_its_first_connection_can_be_stopped(ground: Ground, number: signal.Signals) -> None:
    service = ground.service
    with stopped(ground):
        pool = service.run(*POOL, env={"JOBSVC_WORKERS": "2"})
        eventually(lambda: said(pool, "unavailable").count("jobsvc.worker:") == 2)
        pool.signal(number)
        assert pool.wait(10) == 0
        eventually(lambda: not pool.tree())
    assert "Traceback" not in pool.output


@pytest.mark.parametrize("outage", ["frozen", "stopped"])
def test_idle_worker_can_be_stopped_without_redis(ground: Ground, outage: str) -> None:
    service = ground.service
    pool = service.worker()
    with OUTAGES[outage](ground):
        eventually(lambda: said(pool, "unavailable") and said(service.api, "unavailable"))
        pool.signal(signal.SIGTERM)
        assert pool.wait(10) == 0
        eventually(lambda: not pool.tree())
    eventually(lambda: ready(service) == UP and said(service.api, "available again"))
    assert_no_fuss(service)


@pytest.mark.parametrize("outage", OUTAGES)
def test_worker_stopped_without_redis_lets_its_job_finish(ground: Ground, outage: str) -> None:
    service = ground.service
    pool = brisk(service)
    job_id = service.post(payload={"durationMs": 5000})
    service.until(job_id, "PROCESSING")
    with OUTAGES[outage](ground):
        eventually(lambda: said(pool, "unavailable"))
        pool.signal(signal.SIGTERM)
        assert pool.wait(30) == 0
        job = service.job(job_id)
        assert (job["status"], job["attempts"]) == ("COMPLETED", 1)
        eventually(lambda: not pool.tree())
    eventually(lambda: ready(service) == UP and said(service.api, "available again"))
    assert_no_fuss(service)


def test_finished_job_does_not_delay_the_stop_without_redis(ground: Ground) -> None:
    service = ground.service
    pool = brisk(service)
    job_id = service.post(payload={"durationMs": 1000})
    service.until(job_id, "PROCESSING")
    with stopped(ground):
        service.until(job_id, "COMPLETED")
        pool.signal(signal.SIGTERM)
        assert pool.wait(10) == 0
        eventually(lambda: not pool.tree())
    eventually(lambda: ready(service) == UP and said(service.api, "available again"))
    assert_no_fuss(service)


def test_two_simultaneous_signals_do_not_kill_a_job(ground: Ground) -> None:
    """A pool's SIGINT comes on top of a terminal's or a supervisor's signal, and Redis must not keep them apart."""
    service = ground.service
    pool = service.worker(JOBSVC_SHUTDOWN_SECONDS="20")
    job_id = service.post(payload={"durationMs": 9000}, retry={"max": 0})
    service.until(job_id, "PROCESSING")
    worker = rq_worker(pool)
    with frozen(ground):
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            os.kill(worker, number)
        assert service.until(job_id, "COMPLETED", "FAILED")["status"] == "COMPLETED"
    assert "cold shut down" not in pool.output
