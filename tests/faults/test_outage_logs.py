"""The cause of an outage is logged once, and never sent to clients.

The class: an error of a server that is logged without its cause, each time, or as over before it is. Its members, of
Postgres: closed port, unknown host, wrong password, no such database, too many connections, shut down, a standby,
missing tables, no right to write, an encoding that can't hold every text. Of Redis: closed port, wrong password, an ACL
without scripts, without RQ's keys, without a command, out of memory, read-only, too few replicas, a Redis Cluster.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import redis

from jobsvc.devservices import Valkey
from tests.faults.conftest import Ground
from tests.support.servers import sql
from tests.support.service import Process, Service, eventually, free_port

SECRET = "geh31m"
URL = os.environ["DATABASE_URL"]


def lines(process: Process, server: str) -> list[str]:
    """Return the log lines of this process about outages of the server."""
    found = [line for line in process.output.splitlines() if f"{server}: " in line and "available" in line]
    assert SECRET not in process.output
    return found


def outage_lines(process: Process, server: str) -> list[str]:
    return [line for line in lines(process, server) if "unavailable" in line]


class FullValkey(Valkey):
    """A Valkey with more settings, and a port of its own choice."""

    settings = ""
    port = 0

    def configuration(self, state: dict[str, Any]) -> str:
        return f"{super().configuration(state)}\n{self.settings}\n"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server.start()[0]
    server.stop()


def postgres_url(**parts: Any) -> str:
    """The tests' own URL with other parts."""
    found = psycopg2.extensions.parse_dsn(URL) | {name: str(value) for name, value in parts.items()}
    return "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**found)


POSTGRES: dict[str, tuple[Callable[[], str], str]] = {
    "closed port": (lambda: postgres_url(port=free_port(None), password=SECRET), "Connection refused"),
    "unknown host": (lambda: postgres_url(host="no-such-host.invalid", password=SECRET), "translate host name"),
    "wrong password": (lambda: postgres_url(password=SECRET), "password authentication failed"),
    "no such database": (lambda: postgres_url(dbname="missing"), 'database "missing" does not exist'),
}


@pytest.mark.parametrize("cause", POSTGRES)
def test_cause_of_an_unavailable_postgres_is_logged_once(cause: str) -> None:
    url, expected = POSTGRES[cause]
    service = Service({"DATABASE_URL": url()})
    try:
        for _ in range(4):
            reply = service.client.post("/jobs")
            assert reply.status_code == 503
            assert int(reply.headers["Retry-After"]) > 0
            assert expected not in reply.text
            assert service.client.get("/readyz").status_code == 503
        time.sleep(2.5)  # the relay has swept
        [line] = lines(service.api, "Postgres")
        assert expected in line
    finally:
        service.close()


def test_missing_rights_and_a_standby_are_logged_once(apart: dict[str, str]) -> None:
    """Reading works on, and is no sign that writing does."""
    url = apart["DATABASE_URL"]
    server, _, name = url.rpartition("/")
    service = Service(apart)
    try:
        service.post(delay=600)
        sql(f"{server}/postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = 'jobsvc'"
        )
        sql(f"{server}/postgres", cut, name)
        for _ in range(4):
            eventually(lambda: service.client.post("/jobs").status_code == 503)
            assert service.client.get("/jobs").status_code == 200
        eventually(lambda: service.client.get("/readyz").status_code == 503)
        assert service.client.get("/readyz").json()["postgres"] == "down"
        sql(f"{server}/postgres", f"ALTER DATABASE {name} RESET default_transaction_read_only")
        sql(f"{server}/postgres", cut, name)
        eventually(lambda: service.client.post("/jobs").status_code == 202)
        eventually(lambda: service.client.get("/readyz").status_code == 200)
        eventually(
            lambda: service.client.post("/jobs").status_code == 202 and len(lines(service.api, "Postgres")) % 2 == 0
        )
        assert ["25006" in line for line in outage_lines(service.api, "Postgres")].count(True) == 1
        assert len(outage_lines(service.api, "Postgres")) <= 2  # the connections that were cut may be one of their own
    finally:
        service.close()


SERVE = (sys.executable, "-m", "jobsvc.serve")
WORK = (sys.executable, "worker.py")
FLASK = (sys.executable, "-m", "flask", "--app", "wsgi")


@pytest.mark.parametrize(
    ("encoding", "commands"), [("LATIN1", [SERVE, WORK]), ("SQL_ASCII", [(*FLASK, "run"), (*FLASK, "db", "upgrade")])]
)
def test_database_with_another_encoding_is_refused_at_start(encoding: str, commands: list[tuple[str, ...]]) -> None:
    server = URL.rpartition("/")[0]
    name = f"jobsvc_test_{uuid4().hex[:8]}"
    sql(f"{server}/postgres", f"CREATE DATABASE {name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0")
    env = {"DATABASE_URL": f"{server}/{name}", "PORT": str(free_port(None))}
    processes = [Process(*command, env=env) for command in commands]
    try:
        for process in processes:
            assert process.wait(30) != 0
            [line] = process.output.splitlines()
            assert "DATABASE_URL" in line
            assert encoding in line
    finally:
        for process in processes:
            process.kill()
        sql(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def api(valkey: str, apart: dict[str, str]) -> Iterator[Callable[[str], Service]]:
    """Starts a service on this URL of Redis."""
    started: list[Service] = []

    def start(url: str) -> Service:
        started.append(Service({**apart, "REDIS_URL": url, "JOBSVC_SWEEP_SECONDS": "0.5"}))
        return started[-1]

    yield start
    for service in started:
        service.close()
    with closing(redis.Redis.from_url(valkey)) as client:
        client.config_set("maxmemory", 0)
        client.config_set("min-replicas-to-write", 0)
        client.replicaof("NO", "ONE")
        client.flushall()


ALLOWED = "~rq:* &rq:* +@all"


def as_user(valkey: str, *rules: str) -> str:
    """The URL of Valkey for a user with these rules."""
    with closing(redis.Redis.from_url(valkey)) as client:
        client.execute_command("ACL", "SETUSER", "tester", "reset", "on", f">{SECRET}", *rules)
    return f"redis://tester:{SECRET}@{valkey.rpartition('@')[2]}"


def configured(valkey: str, name: str, value: str) -> str:
    with closing(redis.Redis.from_url(valkey)) as client:
        client.config_set(name, value)
    return valkey


def replica(valkey: str) -> str:
    with closing(redis.Redis.from_url(valkey)) as client:
        client.replicaof("127.0.0.1", 1)
    return valkey


REDIS: dict[str, tuple[Callable[[str], str], str]] = {
    "no scripts": (lambda url: as_user(url, *ALLOWED.split(), "-@scripting"), "no permissions to run the 'eval'"),
    "no push": (lambda url: as_user(url, *ALLOWED.split(), "-rpush"), "no permissions to run the 'rpush'"),
    "no set of fields": (lambda url: as_user(url, *ALLOWED.split(), "-hset"), "NOPERM|permission"),
    "other keys": (lambda url: as_user(url, "~jobsvc:*", "+@all"), "permissions to access"),
    "wrong password": (lambda url: f"redis://:{SECRET}@{url.rpartition('@')[2]}", "password"),
    "closed port": (lambda _: f"redis://127.0.0.1:{free_port(None)}/0", "refused"),
    "out of memory": (lambda url: configured(url, "maxmemory", "1"), "memory"),
    "read-only": (replica, "read only|MASTERDOWN|LOADING"),
    "no replicas": (lambda url: configured(url, "min-replicas-to-write", "1"), "NOREPLICAS"),
}


@pytest.mark.parametrize("cause", REDIS)
def test_cause_of_an_unavailable_redis_is_logged_once(api: Callable[[str], Service], valkey: str, cause: str) -> None:
    refuse, expected = REDIS[cause]
    service = api(refuse(valkey))
    for _ in range(3):
        service.post()
    time.sleep(4)  # any number of sweeps
    service.post()
    is_met_by_probe = cause not in ("no push", "no set of fields")
    assert service.client.get("/readyz").json()["redis"] == ("down" if is_met_by_probe else "up")
    [line] = lines(service.api, "Redis")
    assert any(word in line for word in expected.split("|")), line
    assert "Traceback" not in service.api.output
    assert len(service.api.output.splitlines()) < 10, service.api.output


def test_rights_for_documented_keys_in_redis_are_sufficient(api: Callable[[str], Service], valkey: str) -> None:
    service = api(as_user(valkey, *ALLOWED.split()))
    worker = service.worker()
    job_id = service.post(retry={"max": 0}, payload={"failAttempts": 1})
    service.until(job_id, "FAILED")
    assert service.client.post(f"/jobs/{job_id}/retry").status_code == 200
    service.until(job_id, "COMPLETED")
    assert service.client.get("/readyz").json()["redis"] == "up"
    assert lines(service.api, "Redis") == lines(worker, "Redis") == []


def test_end_of_a_refusal_is_logged_once_and_all_jobs_run(api: Callable[[str], Service], valkey: str) -> None:
    service = api(as_user(valkey, *ALLOWED.split(), "-@scripting"))
    worker = service.run(sys.executable, "worker.py", env={"JOBSVC_WORKERS": "1"})
    posted = [service.post() for _ in range(5)]
    eventually(lambda: len({line.split()[2] for line in outage_lines(worker, "Redis")}) == 2)
    time.sleep(3)
    as_user(valkey, *ALLOWED.split())
    for job_id in posted:
        service.until(job_id, "COMPLETED")
    eventually(lambda: len(lines(service.api, "Redis")) == 2)
    eventually(lambda: len(lines(worker, "Redis")) == 4)  # the worker's and its relay's
    assert "Traceback" not in worker.output
    assert len(worker.output.splitlines()) < 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FullValkey]:
    server = FullValkey(tmp_path)
    server.settings = "cluster-enabled yes"
    yield server
    server.stop()


def own_all_slots(url: str) -> None:
    with closing(redis.Redis.from_url(url)) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: b"cluster_state:ok" in bytes(client.execute_command("CLUSTER", "INFO")))


def test_redis_cluster_is_refused_at_start(cluster: FullValkey, apart: dict[str, str]) -> None:
    """Also of one node, which would take most commands."""
    url, _ = cluster.start()
    for is_ready in (False, True):
        if is_ready:
            own_all_slots(url)
        for command in ("-m", "jobsvc.serve"), ("worker.py",):
            env = {**apart, "REDIS_URL": url, "PORT": str(free_port(None))}
            process = Process(sys.executable, *command, env=env)
            try:
                assert process.wait(30) != 0
                assert process.output.count("\n") == 1, process.output
                assert "REDIS_URL" in process.output
                assert "Cluster" in process.output
            finally:
                process.kill()


def test_redis_cluster_that_appears_later_receives_nothing(
    cluster: FullValkey, apart: dict[str, str], tmp_path: Path
) -> None:
    url, _ = cluster.start()
    own_all_slots(url)
    cluster.stop()
    service = Service({**apart, "REDIS_URL": url, "JOBSVC_SWEEP_SECONDS": "0.5"})
    try:
        posted = [service.post() for _ in range(3)]
        eventually(lambda: outage_lines(service.api, "Redis"))
        assert cluster.start()[0] == url
        service.post()
        time.sleep(4)
        assert service.client.get("/readyz").json()["redis"] == "down"
        assert len(lines(service.api, "Redis")) == 1
        with closing(redis.Redis.from_url(url)) as client:
            assert client.dbsize() == 0
        assert {service.job(job_id)["status"] for job_id in posted} == {"PENDING"}
    finally:
        service.close()


def test_shutdown_and_return_of_postgres_are_logged_once(ground: Ground) -> None:
    service = ground.service
    worker = service.worker()
    ground.postgres.stop()
    for _ in range(5):
        assert service.client.post("/jobs").status_code == 503
    eventually(lambda: outage_lines(worker, "Postgres"))
    time.sleep(3)
    ground.postgres.start()
    job_id = eventually(lambda: service.client.post("/jobs").json().get("jobId"))
    service.until(job_id, "COMPLETED")
    for process in (service.api, worker):
        eventually(lambda process=process: len(lines(process, "Postgres")) % 2 == 0)
    assert len(lines(service.api, "Postgres")) == 2
    assert "Traceback" not in worker.output


def test_too_many_connections_are_logged_once(ground: Ground) -> None:
    """Open connections still work, which does not prove that new ones can be made."""
    url = ground.env["DATABASE_URL"]
    connections = []
    service = ground.service
    try:
        with suppress(psycopg2.OperationalError):
            while True:
                connections.append(psycopg2.connect(url))
        worker = service.run(sys.executable, "worker.py", env={"JOBSVC_WORKERS": "1"})
        eventually(lambda: "too many clients" in worker.output)
        time.sleep(3)
        assert len(outage_lines(service.api, "Postgres")) <= 1
        assert len(outage_lines(worker, "Postgres")) <= 2  # the worker's and its relay's
    finally:
        for one in connections:
            one.close()
    job_id = eventually(lambda: service.client.post("/jobs").json().get("jobId"))
    service.until(job_id, "COMPLETED", timeout=30)
