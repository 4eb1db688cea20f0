"""What `docker compose up` starts, without a container engine: see `topology`."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jobsvc.config import Settings
from jobsvc.processes.timetable import POOL_SECONDS
from tests.faults.test_pid_one import has_zombies, is_sleeping
from tests.image.build import Image
from tests.image.containers import Container
from tests.image.topology import Topology, read_compose, seconds
from tests.support.documents import blocks, commands
from tests.support.launcher import ROOT
from tests.support.service import eventually

WORK = """
from pydantic import BaseModel
from jobsvc import Context, handler

class Number(BaseModel):
    number: int

@handler("DOUBLE")
def double(payload: Number, ctx: Context) -> int:
    return 2 * payload.number
"""


def curl(services: Topology, key: str, path: str, body: str | None = None) -> dict[str, object]:
    """Ask the API with curl, as the documents show."""
    post = ["-X", "POST", "-H", "Content-Type: application/json", "-d", body] if body is not None else []
    authorization = f"Authorization: Bearer {key}"
    done = services.run("curl", "-sS", "--fail-with-body", "-H", authorization, *post, f"http://localhost:3000{path}")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return dict(yaml.safe_load(done.stdout))


def until(services: Topology, key: str, job_id: object, status: str) -> dict[str, object]:
    def job() -> dict[str, object] | None:
        found = curl(services, key, f"/jobs/{job_id}")
        return found if found["status"] == status else None

    found = eventually(job, 30, 0.2)
    assert found
    return found


@pytest.fixture
def worker(services: Topology) -> Iterator[Container]:
    """The worker of compose.yaml, started again after the test if that has ended it."""
    yield services.containers["worker"]
    if services.containers["worker"].process.popen.poll() is not None:
        services.containers["worker"].kill()
        services.start("worker")
        services.containers["worker"].until_healthy()


def test_quick_start_of_the_readme(services: Topology, key: str) -> None:
    [block] = [one for one in blocks(ROOT / "README.md") if one.language == "console"]
    (post, _), (get, _) = commands(block)
    prelude = 'curl() { command curl -sS --fail-with-body -H "Authorization: Bearer $KEY" "$@"; }\n'
    posted = services.run("bash", "-c", prelude + post, KEY=key)
    job_id = yaml.safe_load(posted.stdout)["jobId"]
    get = f"{get.rpartition('/')[0]}/{job_id}"
    eventually(lambda: '"status":"COMPLETED"' in services.run("bash", "-c", prelude + get, KEY=key).stdout)


def test_api_needs_a_key(services: Topology) -> None:
    assert '"status":401' in services.run("curl", "-sS", "http://localhost:3000/jobs").stdout


def test_image_refuses_to_start_without_a_key(services: Topology, image: Image) -> None:
    env = {**services.containers["api"].environment, "JOBSVC_API_KEYS": ""}
    container = Container(services.network, image, env=env)
    assert container.process.wait() == 1
    assert container.output == (
        "jobsvc: HOST: 0.0.0.0 can be reached from other machines: set JOBSVC_API_KEYS, "
        "or JOBSVC_ALLOW_ANONYMOUS=1 to let anyone in\n"
    )
    container.kill()


def test_handlers_are_modules_in_app(services: Topology, image: Image, key: str, tmp_path: Path) -> None:
    """Without a writable folder, /tmp included."""
    (tmp_path / "work.py").write_text(WORK)
    tmp_path.chmod(0o755)
    containers = []
    for program, port in (("api", "3001"), ("worker", "3000")):
        variables = {"JOBSVC_HANDLERS": "work", "JOBSVC_NAMESPACE": "own", "JOBSVC_WORKERS": "1", "PORT": port}
        env = {**services.containers["api"].environment, **variables}
        containers.append(Container(services.network, image, program, env=env, binds={tmp_path: "/app"}))
    for one in containers:
        one.until_healthy()
    authorization = f"Authorization: Bearer {key}"
    body = '{"type": "DOUBLE", "payload": {"number": 21}}'
    done = services.run(
        "curl",
        "-sS",
        "-H",
        authorization,
        "-H",
        "Prefer: wait=20",
        "-d",
        body,
        "http://localhost:3001/jobs",
        "-H",
        "Content-Type: application/json",
    )
    assert '"result":42' in done.stdout, done.stdout
    for one in containers:
        one.kill()


def test_health_of_an_api_that_is_frozen(services: Topology) -> None:
    api = services.containers["api"]
    tree = api.process.tree()
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    try:
        done = api.check_health()
    finally:
        for pid in tree:
            os.kill(pid, signal.SIGCONT)
    assert done.returncode == 1
    assert done.stderr.startswith("jobsvc: health: the API does not answer at http://localhost:3000")
    api.until_healthy()
    assert api.check_health().stdout == "the API answers at http://localhost:3000\n"


def test_health_of_a_worker(services: Topology, worker: Container) -> None:
    assert worker.check_health().stdout == "2 of 2 worker processes of this host sent a heartbeat\n"
    # In a container of an API, no worker runs.
    done = services.containers["api"].run("jobsvc", "health", "worker")
    assert done.returncode == 1
    assert done.stderr.startswith("jobsvc: health: 0 of 2 worker processes ")


def test_sigterm_returns_a_running_job_in_time(services: Topology, worker: Container, key: str) -> None:
    job_id = curl(services, key, "/jobs", '{"payload": {"durationMs": 600000}}')["jobId"]
    until(services, key, job_id, "PROCESSING")
    started = time.monotonic()
    assert worker.stop(seconds(services.services["worker"]["stop_grace_period"])) == 0
    assert time.monotonic() - started >= 2
    assert until(services, key, job_id, "PENDING")["attempts"] == 0
    curl(services, key, f"/jobs/{job_id}/cancel", "{}")


@pytest.mark.parametrize("name", ["api", "worker"])
def test_orphans_are_reaped(services: Topology, name: str) -> None:
    container = services.containers[name]
    assert container.run("sh", "-c", "sleep 0.3 &").returncode == 0
    eventually(lambda: not is_sleeping(container.process))
    eventually(lambda: not has_zombies(container.process))


def test_api_stops_in_time(services: Topology) -> None:
    api = services.containers["api"]
    assert api.stop(seconds(services.services["api"]["stop_grace_period"])) == 0
    api.kill()
    services.start("api")
    services.containers["api"].until_healthy()


def test_compose_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"POSTGRES_PASSWORD.*\.env"):
        read_compose({})


def test_grace_period_of_the_worker_fits() -> None:
    services = read_compose({"POSTGRES_PASSWORD": "x", "JOBSVC_API_KEYS": "a:read:x"})["services"]
    worker = services["worker"]
    shutdown = float(worker["environment"]["JOBSVC_SHUTDOWN_SECONDS"])
    assert shutdown == Settings.model_fields["JOBSVC_SHUTDOWN_SECONDS"].default
    assert shutdown + POOL_SECONDS <= seconds(worker["stop_grace_period"])


def test_no_port_of_a_server_is_published() -> None:
    services = read_compose({"POSTGRES_PASSWORD": "x", "JOBSVC_API_KEYS": "a:read:x"})["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["api"]
