"""What the embedded servers have in common: a folder, a lock, a port, a password, a start and a stop."""

import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60
STOP_SECONDS = 60

LAUNCHES = 3
"""So often it is tried to launch a server: between finding a free port and taking it, another may take it."""


class ServiceError(Exception):
    """A server could not be started or stopped; the message is for the user."""


@dataclass
class Server(ABC):
    """One embedded server. A subclass says how it is made, called and asked."""

    root: Path
    _process: "subprocess.Popen[bytes] | None" = None
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

    def runs(self) -> bool:
        """Whether a server runs on this folder, or somebody is starting one."""
        lock = self._lock() if self.root.exists() else -1
        if lock is not None and lock >= 0:
            os.close(lock)
        return lock is None

    def start(self) -> tuple[str, bool]:
        """Start the server unless it runs; returns its URL, and whether this call started it."""
        self.root.mkdir(parents=True, exist_ok=True)
        launches = 0
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            lock = self._lock()
            if lock is not None:
                try:
                    if launches == LAUNCHES:
                        break
                    self._launch(lock)
                    launches += 1
                finally:
                    os.close(lock)
            url = self.url(self._state())
            if url is not None and self.answers(url):
                return url, launches > 0
            time.sleep(0.02)
        raise ServiceError(f"{self.name} does not start; see {self.root}/{self.name}.log")

    def _launch(self, lock: int) -> None:
        if self._process is not None:
            self._process.wait()  # it holds the lock no more, so it has ended: somebody was quicker to take its port
        state = {"password": secrets.token_hex(16), **self._state()}
        state["port"] = free_port(state.get("port"))
        self._keep({key: value for key, value in state.items() if key != "pid"})
        self.prepare(state, lock)
        with open(self.root / f"{self.name}.log", "a") as log:
            self._process = process = subprocess.Popen(
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
            if not self.runs():
                if self._process is not None:
                    self._process.wait()
                return told
            pid = self._state().get("pid")
            if pid is not None and not told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, self.stop_signal)
                told = True
            time.sleep(0.02)
        raise ServiceError(f"{self.name} does not stop; see {self.root}/{self.name}.log")

    def prepare(self, state: dict[str, Any], lock: int) -> None:
        """Make its folder; processes that do so inherit the lock."""
        self.data.mkdir(exist_ok=True)

    def configuration(self, state: dict[str, Any]) -> str:
        return ""

    @abstractmethod
    def command(self, state: dict[str, Any]) -> list[str]:
        """What to run."""

    @abstractmethod
    def url(self, state: dict[str, Any]) -> str | None:
        """Where it is reached, None while it isn't started."""

    @abstractmethod
    def answers(self, url: str) -> bool:
        """Whether it can be used."""


def wheel(package: str) -> Path:
    """The folder of an installed package, found without importing it: it would set itself up."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServiceError(f"{package} is not installed: pip install -r requirements-dev.txt, or set the server's URL")
    return Path(spec.origin).parent


def free_port(last: int | None) -> int:
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
