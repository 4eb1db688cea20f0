"""`jobsvc health`, as a probe runs it beside the API and the worker."""

import sys
from collections.abc import Iterator

import pytest

from tests.support.launcher import run_program
from tests.support.service import Process, Service, eventually, free_port


@pytest.fixture(scope="module")
def site(apart: dict[str, str]) -> Iterator[Service]:
    service = Service({**apart, "JOBSVC_WORKERS": "1"})
    yield service
    service.close()


@pytest.fixture
def worker(site: Service) -> Iterator[Process]:
    worker = site.worker()
    yield worker
    worker.popen.terminate()  # a killed one counts until it has missed heartbeats
    worker.wait()
    site.kill_workers()


def health(site: Service, *program: str, **env: str) -> tuple[int, str]:
    """Return the exit status and what was printed."""
    done = run_program(sys.executable, "-m", "jobsvc", "health", *program, env={**site.env, **env})
    return done.returncode, done.stdout + done.stderr


def test_api_that_answers_is_healthy(site: Service) -> None:
    found = health(site, "api", http_proxy="http://127.0.0.1:9")
    assert found == (0, f"the API answers at http://localhost:{site.port}\n")


def test_api_that_does_not_answer_is_unhealthy(site: Service) -> None:
    port = free_port()
    status, text = health(site, "api", PORT=str(port))
    assert status == 1
    assert text.startswith(f"jobsvc: health: the API does not answer at http://localhost:{port}: ")
    assert text.count("\n") == 1


def test_worker_that_sends_heartbeats_is_healthy(site: Service, worker: Process) -> None:
    assert health(site, "worker") == (0, "1 of 1 worker processes of this host sent a heartbeat\n")


def test_fewer_processes_than_set_are_unhealthy(site: Service, worker: Process) -> None:
    status, text = health(site, "worker", JOBSVC_WORKERS="2")
    assert (status, text) == (1, "jobsvc: health: 1 of 2 worker processes of this host sent a heartbeat\n")


def test_killed_worker_is_unhealthy_at_once(site: Service, worker: Process) -> None:
    worker.kill()
    eventually(lambda: health(site, "worker")[0] == 1)


def test_unavailable_redis_is_no_failure(site: Service, worker: Process) -> None:
    status, text = health(site, "worker", REDIS_URL="redis://127.0.0.1:9/0")
    assert status == 0
    assert text.startswith("unknown, since Redis is unavailable: ")


def test_wrong_setting_is_one_line(site: Service) -> None:
    assert health(site, "api", PORT="x") == (1, health(site, "worker", PORT="x")[1])
    assert health(site, "other")[0] == 2
