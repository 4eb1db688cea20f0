"""Processes that die alone: what depended on them ends too, and their jobs go on elsewhere."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Ground
from tests.support.service import Process, Service, eventually


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Service]:
    """A service with leases so long that none lapses within a test."""
    ground = Ground(tmp_path, JOBSVC_LEASE_SECONDS="600")
    yield ground.service
    ground.stop()


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def child_of(worker: Process) -> tuple[psutil.Process, psutil.Process]:
    """The RQ worker below this pool that runs a job, and the process of the job, which leads a group of its own."""

    def check() -> tuple[psutil.Process, psutil.Process] | None:
        for one in children(worker.popen.pid):
            for child in one.children():
                if os.getpgid(child.pid) == child.pid:
                    return one, child
        return None

    return eventually(check)  # type: ignore[return-value]


def ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killed_child_process_is_noticed_at_once(patient: Service) -> None:
    worker = patient.worker()
    job_id = patient.post(payload={"durationMs": 60_000}, retry={"max": 1, "interval": 600}, timeout=600)
    eventually(lambda: patient.rq_places(job_id) == ["running"])  # else an unstarted job is returned
    _, child_process = child_of(worker)
    child_process.kill()
    job = patient.until(job_id, "RETRYING", timeout=5)
    assert job["error"]["type"] == "WorkerLost"
    patient.until(patient.post(), "COMPLETED")


def test_child_process_ends_with_its_worker(ground: Ground) -> None:
    service = ground.service
    worker = service.worker()
    job_id = service.post(payload={"durationMs": 4000}, retry={"max": 1, "interval": 0})
    service.until(job_id, "PROCESSING")
    rq_worker, child_process = child_of(worker)
    scheduler = [child for child in rq_worker.children() if child.pid != child_process.pid]
    rq_worker.kill()
    for orphan in [child_process, *scheduler]:
        eventually(lambda orphan=orphan: ended(orphan), 5)
    service.until(job_id, "COMPLETED", timeout=30)  # on the worker that the pool started instead
    assert [attempt["outcome"] for attempt in service.attempts(job_id)] == ["lost", "completed"]


def test_workers_stop_when_their_pool_dies(patient: Service) -> None:
    worker = patient.worker(JOBSVC_WORKERS="2")
    job_id = patient.post(payload={"durationMs": 1500})
    patient.until(job_id, "PROCESSING")
    left = psutil.Process(worker.popen.pid).children(recursive=True)
    os.kill(worker.popen.pid, signal.SIGKILL)
    worker.popen.wait()
    for process in left:
        eventually(lambda process=process: ended(process), 15)
    assert patient.job(job_id)["status"] == "COMPLETED"  # what ran was finished first


def test_dead_relay_of_a_pool_is_restarted(ground: Ground) -> None:
    service = ground.service
    worker = service.worker()
    for pid in service.api.tree():
        os.kill(pid, signal.SIGSTOP)  # so that no other relay helps

    def relay() -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            return next((one for one in children(worker.popen.pid) if not one.children() and not ended(one)), None)
        return None

    before = eventually(relay)
    before.kill()
    eventually(lambda: (now := relay()) and now.pid != before.pid)
    for pid in service.api.tree():
        os.kill(pid, signal.SIGCONT)
    service.until(service.post(delay=0.5), "COMPLETED")


def test_api_process_stops_when_its_parent_dies(ground: Ground) -> None:
    service = ground.service
    [one] = children(service.api.popen.pid)
    os.kill(service.api.popen.pid, signal.SIGKILL)
    service.api.popen.wait()
    eventually(lambda: ended(one), 10)
