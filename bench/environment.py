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
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psutil
import psycopg2
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
    """

    postgres: Callable[[Path], Server] = Postgres

    def __init__(self, data: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobsvc-bench-"))
        self._data = data or self.folder / "servers"
        self.mark = uuid4().hex
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JOBSVC_", "DATABASE_URL", "REDIS_URL"))}
        self.env = {**inherited, "PYTHONPATH": str(ROOT), MARK: self.mark}
        self._servers: list[Server] = []

    def __enter__(self) -> "Environment":
        try:
            self._base, self._redis_url = self._start(self.postgres).rpartition("/")[0], self._start(Valkey)
            self.env["REDIS_URL"] = self._redis_url
            self.redis = redis.Redis.from_url(self._redis_url, decode_responses=True)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave servers running
        self.clear()
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
        self.redis.flushall()
        eventually(self._aof_is_rewritten, "Valkey rewrites its file of its own accord")
        self.redis.bgrewriteaof()
        eventually(self._aof_is_rewritten, "Valkey rewrites its file")
        self._admin("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        self._admin(f"CREATE DATABASE bench TEMPLATE {template}")
        self._admin("CHECKPOINT")
        self.env["DATABASE_URL"] = f"{self._base}/bench"

    def _aof_is_rewritten(self) -> bool:
        state = self.redis.info("persistence")
        return not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])

    def make(self, name: str, fill: Callable[[], object], template: str = "template1") -> None:
        """Make a database for `fresh` or `use`: `fill` does so in `DATABASE_URL`."""
        self._admin(f"CREATE DATABASE {name} TEMPLATE {template}")
        self.env["DATABASE_URL"] = f"{self._base}/{name}"
        fill()

    def use(self, name: str) -> None:
        """Stop all programs, empty Redis, and set `DATABASE_URL` to this database, as it is."""
        self.clear()
        self.redis.flushall()
        self.env["DATABASE_URL"] = f"{self._base}/{name}"

    def _admin(self, statement: str) -> None:
        query(f"{self._base}/postgres", statement)

    def sql(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a statement in the competitor's database."""
        return query(self.env["DATABASE_URL"], statement, parameters or None)

    def servers(self) -> dict[str, psutil.Process]:
        """The servers' processes by name."""
        return {one.name: psutil.Process(one._process.pid) for one in self._servers if one._process is not None}


def query(url: str, statement: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Execute one statement on a new connection, outside of a transaction."""
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
