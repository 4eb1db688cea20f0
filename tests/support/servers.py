"""The servers that tests run on: a database and a Redis database for them alone, and how one is killed."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg2
import redis

from jobsvc.devservices import PLACEHOLDERS, Postgres, Server, Valkey
from tests.support.launcher import run_program

TEMPLATE = "TEST_POSTGRES"
"""The variable with the folder of a stopped Postgres that has the tables: made once for all processes of a run."""


def upgrade(env: dict[str, str]) -> None:
    """Bring the tables of this environment's database up to date."""
    flask_db("upgrade", env=env)


def flask_db(*command: str, env: dict[str, str] | None = None) -> str:
    """Run `flask db` on this environment's database, which must succeed; returns what it printed."""
    done = run_program(sys.executable, "-m", "flask", "--app", "wsgi", "db", *command, env=env or {})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def make_template(folder: Path) -> None:
    """Make the folder that TEMPLATE names. Its copies lose nothing when processes are killed, only when a host is."""
    server = Postgres(folder)
    upgrade({"DATABASE_URL": server.start()[0], "REDIS_URL": PLACEHOLDERS["REDIS_URL"]})
    server.stop()
    with (server.data / "postgresql.auto.conf").open("a") as file:
        file.write("fsync = off\n")
    os.environ[TEMPLATE] = str(folder)


def start_copy(folder: Path) -> tuple[Postgres, str]:
    """Start an embedded Postgres whose database has all tables; returns it and its URL."""
    template, server = Path(os.environ[TEMPLATE]), Postgres(folder)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", template / "postgres", server.data], check=True)
    state = json.loads((template / "postgres.json").read_text())
    (folder / "postgres.json").write_text(json.dumps({"password": state["password"]}))
    url, _ = server.start()
    renew_owner(url)
    return server, url


def renew_owner(url: str) -> None:
    """Let the copy of a database be another one in the eyes of those who share a Redis with it."""
    sql(url, "UPDATE deployment SET owner = gen_random_uuid()")


def sql(url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Execute a statement in this database, which works without the service too."""
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []


def kill_server(server: Server) -> None:
    """SIGKILL an embedded server with all its processes, and wait until they have ended."""
    process = server._process
    assert process is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.wait()
    while server.runs():
        time.sleep(0.01)


class Servers:
    """A database and a Redis database for the tests alone: on embedded servers, or beside the data of given ones."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobsvc-tests-"))
        self.embedded: list[Server] = []
        self._drops: list[Callable[[], Any]] = []
        self._taken: set[int] = set()
        given = os.environ.get("DATABASE_URL")
        self._urls = (
            given or self._start_postgres(),
            os.environ.get("REDIS_URL") or self._start_valkey(),
        )
        # A database is copied only while nobody is connected to it.
        self._maintenance, self._template = ("postgres", "") if given else ("template1", "postgres")
        if given:
            url = self._create("template1")
            upgrade({"DATABASE_URL": url, "REDIS_URL": self._urls[1]})
            self._template = url.rpartition("/")[2]
        self.database_url, self.redis_url = self.apart()

    def apart(self) -> tuple[str, str]:
        """The URLs of another database, with empty tables, and of another, unused Redis database."""
        return self.database(), self._empty_redis(self._urls[1])

    def database(self) -> str:
        """The URL of another database, with empty tables."""
        url = self._create(self._template)
        renew_owner(url)
        return url

    def _start_postgres(self) -> str:
        server, url = start_copy(self.folder)
        self.embedded.append(server)
        return url

    def _start_valkey(self) -> str:
        server = Valkey(self.folder)
        self.embedded.append(server)
        return server.start()[0]

    def _create(self, template: str) -> str:
        url = self._urls[0]
        name = f"jobsvc_test_{uuid4().hex[:8]}"
        base, _, _ = url.replace("postgresql+psycopg2://", "postgresql://").rpartition("/")

        maintenance = f"{base}/{self._maintenance}"
        sql(maintenance, f"CREATE DATABASE {name} TEMPLATE {template}")
        # So that a test fails which would wait for itself.
        sql(maintenance, f"ALTER DATABASE {name} SET lock_timeout = '20s'")
        self._drops.append(lambda: sql(maintenance, f"DROP DATABASE {name} WITH (FORCE)"))
        return f"{base}/{name}"

    def _empty_redis(self, url: str) -> str:
        """Return the number of an empty Redis database, so that no foreign keys are flushed."""
        base = url.rpartition("/")[0] if url.rpartition("/")[2].isdigit() else url.rstrip("/")
        # Of several processes that test, each takes every nth.
        index = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        ours = range(1 + index, 16, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
        for number in sorted(set(ours) - self._taken, reverse=True):
            with redis.Redis.from_url(f"{base}/{number}") as client:
                if client.dbsize() == 0:
                    self._taken.add(number)
                    return f"{base}/{number}"
        raise RuntimeError("the given Redis has no empty database among 1 to 15")

    def give_back(self, redis_url: str) -> None:
        """Empty a Redis database that `apart` gave, for the next one that asks: there are few."""
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()
        self._taken.discard(int(redis_url.rpartition("/")[2]))

    def stop(self) -> None:
        for drop in self._drops:
            drop()
        for server in reversed(self.embedded):
            server.stop()
        shutil.rmtree(self.folder)
