"""A namespace in Redis belongs to one database: another deployment refuses it, and stops using it when it is taken.

The members of the class: a process that starts (the API, the pool, a stock worker), one that runs already (a relay, a
worker, a stock worker), Redis wiped, and Redis unavailable at the start.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.devservices import Valkey
from tests.conftest import fresh_database
from tests.support.launcher import run_program
from tests.support.servers import sql
from tests.support.service import STOCK, Service, eventually

OWNER = "SELECT owner FROM deployment"
KEY = "rq:jobsvc:jobsvc:owner"
OFTEN = {"JOBSVC_SWEEP_SECONDS": "0.5", "JOBSVC_LEASE_SECONDS": "2"}
STARTS = {
    "API": (sys.executable, "-m", "jobsvc.serve"),
    "pool": (sys.executable, "worker.py"),
    "stock worker": STOCK,
    "flask run": (sys.executable, "-m", "flask", "--app", "wsgi", "run", "--port", "0"),
}


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    """The deployment that has the namespace."""
    service = Service({**apart, **OFTEN})
    yield service
    service.close()


@pytest.fixture(scope="module")
def other(service: Service) -> dict[str, str]:
    """The environment of another deployment, with a database of its own, on the same Redis and namespace."""
    env = {name: value for name, value in service.env.items() if name != "PORT"}
    return {**env, "DATABASE_URL": fresh_database()}


def migrate(option: str, env: dict[str, str]) -> None:
    done = run_program(sys.executable, "-m", "jobsvc.migrate", option, env=env)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", STARTS)
def test_deployment_with_another_database_refuses_to_start(service: Service, other: dict[str, str], kind: str) -> None:
    before = service.redis().get(KEY)
    assert before is not None
    done = run_program(*STARTS[kind], env=other)
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if "JOBSVC_NAMESPACE" in line]
    assert "--new-owner" in line
    assert "--take-namespace" in line
    assert "Traceback" not in done.stderr
    assert service.redis().get(KEY) == before


def test_owner_is_written_again_after_a_wipe(service: Service) -> None:
    before = service.redis().get(KEY)
    service.redis().flushdb()
    assert eventually(lambda: service.redis().get(KEY)) == before


@pytest.mark.parametrize("kind", ["pool", "stock"])
def test_running_deployment_stops_using_a_taken_namespace(service: Service, other: dict[str, str], kind: str) -> None:
    worker = service.worker(kind)
    service.until(service.post(), "COMPLETED")
    migrate("--take-namespace", other)
    eventually(lambda: redis_of(service) == "taken")
    assert service.client.get("/readyz").status_code == 200
    taker = Service(other)
    try:
        ids = [taker.post() for _ in range(5)]
        lost = [service.post() for _ in range(5)]
        if kind == "stock":
            eventually(lambda: not service.alive(worker))
        else:
            eventually(lambda: "takes no job" in worker.output)
        eventually(lambda: len(service.api.output.split("--take-namespace")) > 1)
        theirs = [job_id.encode() for job_id in ids]
        eventually(lambda: sorted(service.redis().lrange("rq:queue:jobsvc.default", 0, -1)) == sorted(theirs))
        taker.worker()
        for job_id in ids:
            taker.until(job_id, "COMPLETED")
        assert {service.job(job_id)["status"] for job_id in lost} == {"PENDING"}
    finally:
        taker.close()
    migrate("--take-namespace", service.env)
    eventually(lambda: redis_of(service) == "up")
    if kind == "stock":
        service.worker(kind)
    for job_id in lost:
        service.until(job_id, "COMPLETED")
    for process in service.processes[1:]:
        process.kill()


def test_copied_database_gets_a_new_id(service: Service) -> None:
    copy = {**service.env, "DATABASE_URL": fresh_database()}
    [(original,)] = service.sql(OWNER)
    sql(copy["DATABASE_URL"], "UPDATE deployment SET owner = %s", original)
    migrate("--new-owner", copy)
    assert sql(copy["DATABASE_URL"], OWNER) != [(original,)]
    assert run_program(*STARTS["API"], env=copy).returncode != 0


def test_redis_unavailable_at_the_start_is_checked_later(
    service: Service, other: dict[str, str], tmp_path: Path
) -> None:
    valkey = Valkey(tmp_path)
    url, _ = valkey.start()
    first = Service({**other, "DATABASE_URL": service.env["DATABASE_URL"], "REDIS_URL": url})
    eventually(lambda: first.redis().get(KEY))
    valkey.stop()
    second = Service({**other, "REDIS_URL": url})
    try:
        assert redis_of(second) == "down"
        eventually(lambda: redis_of(first) == "down")
        valkey.start()
        eventually(lambda: {redis_of(first), redis_of(second)} == {"up", "taken"})
    finally:
        first.close()
        second.close()
        valkey.stop()


def redis_of(service: Service) -> str:
    return str(service.client.get("/readyz").json()["redis"])
