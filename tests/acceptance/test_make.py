"""The Makefile's own commands, as a user types them."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from jobsvc.devservices import Postgres, Valkey
from tests.support.launcher import ROOT
from tests.support.service import Process, eventually, free_port


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which make uses embedded servers with a data folder of this test's own."""
    return {
        "PORT": str(free_port(None)),
        "JOBSVC_DEV_DIR": str(tmp_path / "data"),
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "JOBSVC_WORKERS": "1",
    }


@pytest.fixture
def make(env: dict[str, str]) -> Iterator[object]:
    started: list[Process] = []

    def make(*targets: str, **more: str) -> Process:
        process = Process("make", *targets, env={**env, **more})
        started.append(process)
        return process

    yield make
    for process in started:
        process.kill()
    subprocess.run(["make", "-s", "services-down"], env={**os.environ, **env}, cwd=ROOT, check=True)


def answers(url: str, process: Process) -> bool:
    assert process.popen.poll() is None, process.output
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def curl(*arguments: str) -> str:
    return subprocess.run(["curl", "-s", *arguments], capture_output=True, text=True, check=True).stdout


def running(env: dict[str, str]) -> list[str]:
    """Return the embedded servers that run on this test's folder."""
    root = Path(env["JOBSVC_DEV_DIR"])
    return [server.name for server in (Postgres(root), Valkey(root)) if server.runs()]


def test_up_serves_everything_and_leaves_no_process(make, env: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    url = f"http://localhost:{env['PORT']}"
    up = make("up")
    eventually(lambda: answers(url, up), 60)
    job_id = re.search(
        r'"jobId": ?"([0-9a-f-]{36})"',
        curl("-X", "POST", f"{url}/jobs", "-H", "Content-Type: application/json", "-d", "{}"),
    ).group(1)  # type: ignore[union-attr]
    eventually(lambda: '"status":"COMPLETED"' in curl(f"{url}/jobs/{job_id}"))
    assert "RQ dashboard" in curl(f"{url}/rq/")
    assert '"name":"jobsvc.default"' in curl(f"{url}/rq/0/data/queues.json")
    for line in ("jobsvc: starting postgres and valkey", "jobsvc: migrating the tables", "jobsvc is up"):
        assert line in up.output
    for line in (f"{url}/jobs", f"{url}/rq/", "postgresql://", "redis://", "worker | Worker Started"):
        assert line in up.output
    assert running(env) == ["postgres", "valkey"]
    up.signal(signal.SIGINT)
    up.wait(30)
    assert "all stopped" in up.output
    assert running(env) == []
    eventually(lambda: not up.tree())
    assert "Traceback" not in up.output

    again = make("up")
    eventually(lambda: answers(url, again), 60)
    assert '"status":"COMPLETED"' in curl(f"{url}/jobs/{job_id}")
    again.signal(signal.SIGTERM)
    again.wait(30)
    assert running(env) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_second_ctrl_c_during_a_job_leaves_no_process(make, env: dict[str, str], number: signal.Signals) -> None:  # type: ignore[no-untyped-def]
    """Nor when a worker was killed before, and its job's process left alone."""
    url = f"http://localhost:{env['PORT']}"
    up = make("up")
    eventually(lambda: answers(url, up), 60)
    body = '{"payload": {"durationMs": 60000}}'
    job_id = httpx.post(f"{url}/jobs", content=body, headers={"Content-Type": "application/json"}).json()["jobId"]
    eventually(lambda: httpx.get(f"{url}/jobs/{job_id}").json()["status"] == "PROCESSING")
    everything = psutil.Process(up.popen.pid).children(recursive=True)
    outsiders = (up.popen.pid, everything[0].pid)
    child_processes = [one for one in everything if os.getpgid(one.pid) == one.pid and one.ppid() not in outsiders]
    for worker in [child_process.parent() for child_process in child_processes]:
        worker.kill()
    up.signal(number)
    time.sleep(2)  # RQ takes a second signal within a second for the first one
    up.signal(number)
    up.wait(30)
    assert running(env) == []
    for process in everything:
        eventually(lambda process=process: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_second_ctrl_c_ends_at_once_and_loses_no_job(make, env: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    url = f"http://localhost:{env['PORT']}"
    more = {"JOBSVC_LEASE_SECONDS": "3", "JOBSVC_SHUTDOWN_SECONDS": "600"}
    up = make("up", **more)
    eventually(lambda: answers(url, up), 60)

    def post(**payload: int) -> str:
        body = {"payload": payload, "retry": {"max": 1, "interval": 0}}
        return str(httpx.post(f"{url}/jobs", json=body).json()["jobId"])

    def show(job_id: str) -> dict[str, object]:
        return dict(httpx.get(f"{url}/jobs/{job_id}").json())

    running, waiting = post(durationMs=10_000), [post() for _ in range(5)]
    eventually(lambda: show(running)["status"] == "PROCESSING")
    up.signal(signal.SIGINT)
    time.sleep(2)  # RQ takes a second signal within a second for the first one
    up.signal(signal.SIGINT)
    up.wait(30)

    again = make("up", **more)
    eventually(lambda: answers(url, again), 60)
    for job_id in (running, *waiting):
        eventually(lambda job_id=job_id: show(job_id)["status"] == "COMPLETED", 60)
    assert show(running)["attempts"] in (1, 2)  # returned uncounted, if Postgres was still running
    assert [show(job_id)["attempts"] for job_id in waiting] == [1] * 5


def test_up_with_a_wrong_setting_leaves_no_process(make, env: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    up = make("up", PORT="99999")
    assert up.wait(60) != 0
    assert "jobsvc: PORT: " in up.output
    assert "Traceback" not in up.output
    assert running(env) == []


def test_run_and_worker_share_the_embedded_servers(make, env: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    url = f"http://localhost:{env['PORT']}"
    worker, api = make("worker"), make("run")
    eventually(lambda: answers(url, api), 60)
    eventually(lambda: "Worker Started" in worker.output, 60)
    demo = make("demo", JOBSVC_URL=url)
    assert demo.wait(60) == 0, demo.output
    for status in ("PENDING", "PROCESSING", "RETRYING", "COMPLETED"):
        assert status in demo.output
    for process in (api, worker):
        process.signal(signal.SIGINT)
        process.wait(30)
        eventually(lambda process=process: not process.tree())


def test_services_prints_urls_that_stock_commands_use(make, env: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    command = (
        'eval "$(make -s services)" && .venv/bin/flask --app wsgi db upgrade && .venv/bin/flask --app wsgi db check'
        ' && .venv/bin/rq info -u "$REDIS_URL"'
    )
    # make's own .venv is this test's interpreter; another one would hide a missing requirement.
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "No new upgrade operations detected" in done.stdout + done.stderr
    assert "0 queues" in done.stdout or "0 workers" in done.stdout


def test_help_lists_the_commands() -> None:
    listing = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in (
        "up",
        "run",
        "worker",
        "test",
        "demo",
        "example",
        "services",
        "services-down",
        "migrate",
        "lint",
        "lock",
        "test-pythons",
        "format",
        "clean",
    ):
        assert f"make {name} " in listing
