"""RQ's own commands, given to a worker that is busy."""

import subprocess
from pathlib import Path

import pytest
from rq.command import send_kill_horse_command, send_stop_job_command
from rq.serializers import JSONSerializer

from tests.faults.conftest import Ground
from tests.support.launcher import ROOT, RQ
from tests.support.service import Service, eventually


@pytest.fixture
def service(ground: Ground) -> Service:
    ground.service.worker()
    return ground.service


def running(service: Service, path: Path, **body: object) -> str:
    """Start a job that runs until there is this file."""
    job_id = service.post("UNTIL", {"path": str(path)}, **body)
    eventually(lambda: service.rq_places(job_id) == ["running"])
    return job_id


def rq(ground: Ground, command: str) -> None:
    subprocess.run([RQ, command, "-u", ground.env["REDIS_URL"]], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("threads", ["1", "8"])
def test_stop_job_command_stops_the_job(ground: Ground, tmp_path: Path, threads: str) -> None:
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY=threads)
    job_id = running(service, tmp_path / "never", retry={"max": 3, "interval": 0})
    with service.redis() as client:
        send_stop_job_command(client, job_id, serializer=JSONSerializer)
    service.until(job_id, "CANCELLED", timeout=5)
    eventually(lambda: service.rq_job(job_id).get_status() == "stopped")
    eventually(lambda: service.rq_places(job_id) == ["failed"])
    assert [attempt["outcome"] for attempt in service.attempts(job_id)] == ["cancelled"]
    service.until(service.post(), "COMPLETED")


def test_kill_horse_command_kills_the_child_process(service: Service, tmp_path: Path) -> None:
    job_id = running(service, tmp_path / "go on", retry={"max": 1, "interval": 0})
    [worker] = {one["name"] for one in service.client.get("/workers").json()["workers"]}
    with service.redis() as client:
        send_kill_horse_command(client, worker)
    eventually(lambda: [attempt["outcome"] for attempt in service.attempts(job_id)] == ["lost"])
    (tmp_path / "go on").touch()
    assert service.until(job_id, "COMPLETED")["attempts"] == 2


def test_suspended_worker_finishes_its_jobs_and_starts_no_other(
    ground: Ground, service: Service, tmp_path: Path
) -> None:
    """Running jobs finish; no other starts until the workers are resumed."""
    busy = running(service, tmp_path / "go on")
    rq(ground, "suspend")
    waiting = [service.post() for _ in range(20)]
    (tmp_path / "go on").touch()
    service.until(busy, "COMPLETED")
    eventually(lambda: {one["state"] for one in service.client.get("/workers").json()["workers"]} == {"suspended"})
    assert {service.job(job_id)["status"] for job_id in waiting} == {"PENDING"}
    rq(ground, "resume")
    for job_id in waiting:
        service.until(job_id, "COMPLETED")


def test_resumed_worker_starts_jobs_while_a_long_one_runs(ground: Ground, tmp_path: Path) -> None:
    service = ground.service
    service.worker(JOBSVC_CONCURRENCY="8")
    long, short = running(service, tmp_path / "at last"), running(service, tmp_path / "go on")
    rq(ground, "suspend")
    waiting = [service.post() for _ in range(20)]
    (tmp_path / "go on").touch()
    service.until(short, "COMPLETED")
    assert {service.job(job_id)["status"] for job_id in waiting} == {"PENDING"}
    rq(ground, "resume")
    for job_id in waiting:
        service.until(job_id, "COMPLETED")
    assert service.job(long)["status"] == "PROCESSING"
    (tmp_path / "at last").touch()
    service.until(long, "COMPLETED")
