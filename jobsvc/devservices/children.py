"""The child processes of `jobsvc up`, with prefixed output."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

READY = {"api": "jobsvc serves ", "worker": "Worker Started"}
"""What each program prints when it has started."""


class Child:
    """A process in its own session, which Ctrl-C reaches only by `jobsvc up`; its output lines are prefixed."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self.name = name
        self.process = process
        self.is_stopping = False
        self.is_ready = False
        self._last_line = ""
        self._reader = threading.Thread(target=self._copy, args=(process.stdout,), daemon=True)

    @classmethod
    def start(cls, name: str, *arguments: str) -> "Child":
        """Run Python with these arguments."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",  # a handler may print anything
            start_new_session=True,
        )
        child = cls(name, process)
        child._reader.start()
        return child

    def _copy(self, lines: IO[str]) -> None:
        for line in lines:
            self._last_line = line.strip() or self._last_line
            self.is_ready = self.is_ready or READY[self.name] in line
            with contextlib.suppress(OSError):  # the output was closed; the child must not block
                print(f"{self.name:<6} | {line}", end="", flush=True)

    def is_running(self) -> bool:
        """Return True until the process has exited."""
        return self.process.poll() is None

    def why_it_ended(self) -> str:
        """Return its last line, or its exit status if it printed none."""
        self._reader.join(1)
        return without_prefix(self._last_line) or f"exit status {self.process.returncode}"

    def stop(self) -> None:
        """Send SIGTERM. At the second one RQ's workers end at once, with the jobs that they run."""
        self.is_stopping = True
        if self.is_running():
            self.process.send_signal(signal.SIGTERM)

    def kill_session(self) -> None:
        """Kill the processes that are left of its session, and print the last lines."""
        kill_session(self.process.pid)
        self._reader.join(1)


def kill_session(leader: int) -> None:
    """Kill all processes of the session that this process leads or has led."""
    for pid in _pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


def has_orphan() -> bool:
    """Return True if the API of a killed `jobsvc up` still runs; it is about to end."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            match Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0"):
                case [_, "-m", "jobsvc.devservices.program", parent, _, "api", *_]:
                    if not Path(f"/proc/{parent}").exists():
                        return True
    return False


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def print_line(line: str) -> None:
    """Print a line of `jobsvc up` itself."""
    with contextlib.suppress(OSError):  # the terminal may be closed
        print(f"jobsvc: {line}", flush=True)


def without_prefix(line: str) -> str:
    """Return a program's last line without the program's name."""
    return line.removeprefix("jobsvc: ")
