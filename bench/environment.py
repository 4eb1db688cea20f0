"""The environment of a run: its own Postgres and Valkey, and processes that all end with it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import psycopg2
import psycopg2.errors
import redis

from jobsvc.devservices import Postgres, Server, Valkey
from jobsvc.devservices.server import free_port

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MARK = "JOBSVC_BENCH_RUN"
"""The variable that marks a run's processes, so that it finds them in other sessions too."""


class BenchError(Exception):
    """A competitor failed; the message names it and its log."""


def eventually(condition: Callable[[], T], what: str, timeout: float = 60, pause: float = 0.05) -> T:
    """Return the first true result of `condition`; raise BenchError at the deadline."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {timeout:g} s")
        time.sleep(pause)
    return answer


class Program:
    """A process of a competitor, with all that it starts."""

    def __init__(self, environment: "Environment", command: tuple[str, ...], env: dict[str, str]) -> None:
        self.log = environment.folder / f"{uuid4().hex[:8]}-{Path(command[-1]).stem}.log"
        with self.log.open("w") as out:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**environment.env, **env},
                cwd=environment.folder,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise BenchError if it has ended."""
        if self.popen.poll() is not None:
            raise BenchError(f"{self.popen.args} ended with {self.popen.returncode}:\n{self.log.read_text()[-2000:]}")

    def succeed(self, timeout: float) -> None:
        """Wait until it has ended well."""
        try:
            if self.popen.wait(timeout):
                self.check()
        except subprocess.TimeoutExpired as error:
            raise BenchError(str(error)) from error


class Environment:
    """The servers in a temporary folder, and the running programs. A context manager.

    data: a folder in which the servers' data stays after the run; None: it is temporary, too.
    given: may have DATABASE_URL and REDIS_URL, of servers that are used instead.
    """

    postgres: Callable[[Path], Server] = Postgres

    def __init__(self, data: Path | None = None, given: Mapping[str, str] | None = None) -> None:
        self._given = given or {}
        self._made: set[str] = set()
        self._may_flush = False
        self.folder = Path(tempfile.mkdtemp(prefix="jobsvc-bench-"))
        self._data = data or self.folder / "servers"
        self.mark = uuid4().hex
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JOBSVC_", "DATABASE_URL", "REDIS_URL"))}
        self.env = {**inherited, "PYTHONPATH": str(ROOT), MARK: self.mark}
        self._servers: list[Server] = []

    def __enter__(self) -> "Environment":
        try:
            self._base = self._given.get("DATABASE_URL", "").replace("+psycopg2", "") or self._start(self.postgres)
            self.env["REDIS_URL"] = self._given.get("REDIS_URL") or self._start(Valkey)
            self.redis = redis.Redis.from_url(self.env["REDIS_URL"], decode_responses=True)
            if self.redis.dbsize():
                raise BenchError("REDIS_URL: this database has keys, which a run would delete; give an empty one")
            self._may_flush = True
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave servers running
        self.clear()
        if self._given and self._may_flush:
            self.redis.flushdb()
            for name in self._made:
                self._drop(name)
        for server in reversed(self._servers):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, kind: Callable[[Path], Server]) -> str:
        server = kind(self._data)
        self._servers.append(server)
        return server.start()[0]

    def run(self, *command: str, **env: str) -> Program:
        """Start a program in the run's folder, with the URLs of the servers in its environment."""
        return Program(self, command, env)

    def serve(self, *command: str, **env: str) -> tuple[Program, int]:
        """Start an API, and wait until it takes connections; returns its port too."""
        port = free_port(None)
        program = self.run(*command, PORT=str(port), **env)

        def listens() -> bool:
            program.check()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        eventually(listens, f"{command} listens")
        return program, port

    def clear(self) -> None:
        """Kill every program of this run."""
        while mine := self._programs():
            for process in mine:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(mine, 5)

    def _programs(self) -> list[psutil.Process]:
        mine = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    mine.append(process)
        return mine

    def fresh(self, template: str) -> None:
        """Stop all programs, empty Redis, and set `DATABASE_URL` to a new copy of this template."""
        self.clear()
        self.redis.flushdb()
        if self.redis.config_get("appendonly").get("appendonly") == "yes":
            eventually(self._aof_is_rewritten, "Redis rewrites its file of its own accord")
            self.redis.bgrewriteaof()
            eventually(self._aof_is_rewritten, "Redis rewrites its file")
        self._create("bench", self._name(template))
        with contextlib.suppress(psycopg2.errors.InsufficientPrivilege):
            self._admin("CHECKPOINT")
        self.env["DATABASE_URL"] = self._url("bench")

    def _aof_is_rewritten(self) -> bool:
        state = self.redis.info("persistence")
        return not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])

    def make(self, name: str, fill: Callable[[], object], template: str | None = None) -> None:
        """Make a database for `fresh` or `use`: `fill` does so in `DATABASE_URL`."""
        self._create(name, self._name(template) if template else "template1")
        self.env["DATABASE_URL"] = self._url(name)
        fill()

    def use(self, name: str) -> None:
        """Stop all programs, empty Redis, and set `DATABASE_URL` to this database, as it is."""
        self.clear()
        self.redis.flushdb()
        self.env["DATABASE_URL"] = self._url(name)

    def _name(self, name: str) -> str:
        """Return the database's name on the server; on a given one it can't be that of a database of others."""
        return f"jobsvc_bench_{name}" if "DATABASE_URL" in self._given else name

    def _url(self, name: str) -> str:
        return urlsplit(self._base)._replace(path=f"/{self._name(name)}").geturl()

    def _create(self, name: str, template: str) -> None:
        self._drop(name)
        self._made.add(name)
        self._admin(f"CREATE DATABASE {self._name(name)} TEMPLATE {template}")

    def _drop(self, name: str) -> None:
        self._admin(f"DROP DATABASE IF EXISTS {self._name(name)} WITH (FORCE)")

    def _admin(self, statement: str) -> None:
        query(self._base, statement)

    def sql(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a statement in the competitor's database."""
        return query(self.env["DATABASE_URL"], statement, parameters or None)

    def servers(self) -> dict[str, psutil.Process]:
        """The servers' processes by name, without those of other machines."""
        found = {one.name: psutil.Process(one._process.pid) for one in self._servers if one._process is not None}
        with contextlib.suppress(psutil.Error):
            if "REDIS_URL" in self._given:
                found["valkey"] = _process(self.redis.info("server")["process_id"], "redis", "valkey")
            if "DATABASE_URL" in self._given:
                with contextlib.closing(psycopg2.connect(self._base)) as connection:
                    found["postgres"] = _process(connection.get_backend_pid(), "postgres").parent()
        return found


def _process(pid: int, *names: str) -> psutil.Process:
    """Return the process if it is a server of one of these names. Raises psutil.NoSuchProcess."""
    process = psutil.Process(pid)
    if not process.name().startswith(names):
        raise psutil.NoSuchProcess(pid)
    return process


def query(url: str, statement: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Execute one statement on a new connection, outside of a transaction."""
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
