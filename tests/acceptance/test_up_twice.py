"""`make up` and its folder: one at a time has it, and one that is killed leaves no process.

What may be tried beside a `make up`: another one, at the same moment or later, with another PORT too; `make
services-down` and `make clean`, which would stop its servers; `make services`, `make run`, `make worker` and `make
migrate`, which share them. What may be killed: make, what it runs, both at once, with a job at work, while the
servers are still being made; and what is tried right after that: a new `make up`, `make services-down`.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from jobsvc.devservices import Postgres, Valkey
from tests.acceptance.test_startup import UP
from tests.support.launcher import ROOT
from tests.support.service import Process, eventually, free_port

pytestmark = pytest.mark.slow

Make = Callable[..., Process]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PORT": str(free_port(None)),
        "JOBSVC_DEV_DIR": str(tmp_path / "data"),
        "DATABASE_URL": "",
        "REDIS_URL": "",
        "JOBSVC_WORKERS": "1",
        "JOBSVC_SHUTDOWN_SECONDS": "2",
    }


@pytest.fixture
def make(env: dict[str, str]) -> Iterator[Make]:
    started: list[Process] = []

    def make(*targets: str, command: tuple[str, ...] = ("make",), **more: str) -> Process:
        process = Process(*command, *targets, env={**env, **more})
        started.append(process)
        return process

    yield make
    for process in started:
        process.kill()
    subprocess.run(["make", "-s", "services-down"], env={**os.environ, **env}, cwd=ROOT, check=True)


def is_up(up: Process) -> bool:
    assert up.popen.poll() is None, up.output
    return "jobsvc is up" in up.output


def processes_of(env: dict[str, str]) -> dict[int, str]:
    """All processes that have this test's folder in their environment or command line, zombies left out."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            command = process.cmdline()
            words = [process.environ().get("JOBSVC_DEV_DIR", ""), *command]
            if any(env["JOBSVC_DEV_DIR"] in word for word in words) and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(command[:4])
    return found


def names(env: dict[str, str]) -> list[str]:
    return list(processes_of(env).values())


def servers(env: dict[str, str]) -> list[str]:
    root = Path(env["JOBSVC_DEV_DIR"])
    return [server.name for server in (Postgres(root), Valkey(root)) if server.runs()]


def refused(process: Process) -> str:
    """The only line of a command that is refused."""
    assert process.wait(40) != 0
    [line] = [line for line in process.output.splitlines() if not line.startswith("make: ")]
    return line


def healthy(env: dict[str, str]) -> bool:
    return httpx.get(f"http://localhost:{env['PORT']}/readyz").json().get("redis") == "up"


def test_running_up_keeps_its_folder_and_servers(make: Make, env: dict[str, str]) -> None:
    up = make("up")
    eventually(lambda: is_up(up), 60)
    owner = psutil.Process(up.popen.pid).children()[0].pid
    twice, elsewhere = make("up"), make("up", PORT=str(free_port(None)))
    for second in (twice, elsewhere):
        assert refused(second).startswith(f"jobsvc: jobsvc up already runs in this folder (process {owner}), ")
    assert refused(make("services-down")).startswith(f"jobsvc: jobsvc up runs in this folder (process {owner}), ")
    # `make clean` goes on to remove files only after this has succeeded.
    plan = subprocess.run(["make", "-n", "clean"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert plan.index("jobsvc.devservices stop") < plan.index("rm -rf")

    services = make("-s", "services")
    assert services.wait(40) == 0
    assert services.output.count("export ") == 2
    assert servers(env) == ["postgres", "valkey"]
    assert healthy(env)
    up.signal(signal.SIGINT)
    assert "all stopped" in (up.wait(40), up.output)[1]
    assert names(env) == []


def test_only_one_of_two_concurrent_ups_runs(make: Make, env: dict[str, str]) -> None:
    ups = [make("up"), make("up", PORT=str(free_port(None)))]
    eventually(lambda: any(one.popen.poll() is not None for one in ups), 60)
    [refusing] = [one for one in ups if one.popen.poll() is not None]
    [running] = [one for one in ups if one is not refusing]
    assert "already runs in this folder (process " in refused(refusing)
    eventually(lambda: is_up(running), 60)
    running.signal(signal.SIGINT)
    running.wait(40)
    assert names(env) == []


@pytest.mark.parametrize("victim", ["make", "both"])
def test_killed_up_leaves_no_process_and_a_new_one_starts(make: Make, env: dict[str, str], victim: str) -> None:
    up = make("up")
    eventually(lambda: is_up(up), 60)
    job = httpx.post(f"http://localhost:{env['PORT']}/jobs", json={"payload": {"durationMs": 60000}}).json()["jobId"]
    url = f"http://localhost:{env['PORT']}/jobs/{job}"
    eventually(lambda: httpx.get(url).json()["status"] == "PROCESSING")
    child = psutil.Process(up.popen.pid).children()[0].pid
    killed = {"make": [up.popen.pid], "both": [child, up.popen.pid]}[victim]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    if victim == "both":  # a new one at once, which waits until it has the place to itself
        again = make("up")
        eventually(lambda: is_up(again), 90)
        assert httpx.get(url).json()["attempts"] <= 2
        again.signal(signal.SIGINT)
        again.wait(40)
    eventually(lambda: names(env) == [], 40)
    assert servers(env) == []


def test_up_killed_while_starting_servers_leaves_no_process(make: Make, env: dict[str, str]) -> None:
    up = make(command=UP)
    eventually(lambda: any("postgres" in name or "initdb" in name for name in names(env)), 60)
    os.kill(up.popen.pid, signal.SIGKILL)
    up.wait()
    down = make("services-down")
    assert down.wait(60) == 0, down.output
    eventually(lambda: names(env) == [], 40)
    again = make("up")
    eventually(lambda: is_up(again), 90)


def test_programs_end_though_the_watcher_was_killed(make: Make, env: dict[str, str], apart: dict[str, str]) -> None:
    up = make(command=UP, **apart)
    eventually(lambda: is_up(up), 60)
    [watcher] = [pid for pid, name in processes_of(env).items() if "jobsvc.devservices.watcher" in name]
    for pid in (watcher, up.popen.pid):
        os.kill(pid, signal.SIGKILL)
    up.wait()
    again = make(command=UP, **apart)  # which finds the port still taken
    eventually(lambda: is_up(again), 90)
    again.signal(signal.SIGINT)
    again.wait(40)
    eventually(lambda: names(env) == [], 40)
