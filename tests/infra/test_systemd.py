"""A real systemd runs the units of deploy/systemd: tables, API, workers, their handlers, and their stop."""

import os
from collections.abc import Iterator

import httpx
import pytest

from tests.infra.systemd_machine import Machine
from tests.support.service import eventually, free_port

WORKERS = "jobsvc-worker@1"


@pytest.fixture(scope="module")
def port() -> int:
    return free_port(None)


@pytest.fixture(scope="module")
def machine(port: int, apart: dict[str, str]) -> Iterator[Machine]:
    settings = {
        **apart,
        "PORT": str(port),
        "JOBSVC_HANDLERS": "tests.support.handlers.confined",
        "JOBSVC_WORKERS": "1",
        "JOBSVC_SHUTDOWN_SECONDS": "5",
    }
    made = Machine(settings)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def client(machine: Machine, port: int) -> Iterator[httpx.Client]:
    """A client of the API that systemd runs, after it has migrated the tables; workers run, too."""
    machine.run("systemctl", "start", "jobsvc-migrate")
    assert machine.show("jobsvc-migrate", "Result") == "success"
    machine.run("systemctl", "start", "jobsvc-api", WORKERS)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        def is_ready() -> bool:
            try:
                return client.get("/readyz").json()["redis"] == "up"
            except httpx.TransportError:
                assert machine.show("jobsvc-api", "NRestarts") == "0", machine.logs()
                return False

        eventually(is_ready, 60, 0.2)
        yield client


def test_handler_can_do_what_handlers_do(machine: Machine, client: httpx.Client) -> None:
    job = client.post("/jobs", json={"type": "CONFINED"}, headers={"Prefer": "wait=60"}).json()
    assert job["status"] == "COMPLETED", job["error"]
    result = job["result"]
    assert result.pop("uid") not in (0, os.getuid())
    assert result == {
        "squares": [1, 4, 9],
        "echo": "hello\n",
        "folder": "/var/lib/jobsvc/kept",
        "written": [],
    }


def test_unit_that_was_killed_starts_again(machine: Machine, client: httpx.Client) -> None:
    machine.run("systemctl", "kill", "--signal=SIGKILL", WORKERS)
    eventually(lambda: machine.show(WORKERS, "NRestarts") == "1", 30, 0.2)
    job = client.post("/jobs", json={"payload": {"result": 1}}, headers={"Prefer": "wait=60"}).json()
    assert (job["status"], job["result"]) == ("COMPLETED", 1)


def test_stop_returns_running_jobs_within_the_grace_period(machine: Machine, client: httpx.Client) -> None:
    job_id = client.post("/jobs", json={"payload": {"durationMs": 600_000}, "timeout": 900}).json()["jobId"]
    eventually(lambda: client.get(f"/jobs/{job_id}").json()["status"] == "PROCESSING", 60)
    with client.stream("GET", f"/jobs/{job_id}/events") as stream:
        assert stream.status_code == 200
        machine.run("systemctl", "stop", WORKERS)
        assert machine.show(WORKERS, "Result") == "success"
        job = client.get(f"/jobs/{job_id}").json()
        assert (job["status"], job["attempts"]) == ("PENDING", 0)
        machine.run("systemctl", "stop", "jobsvc-api")
    assert machine.show("jobsvc-api", "Result") == "success"
