"""The programs that `make up` starts, and all that these start."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import IO

import psutil


class Child:
    """A process in a session of its own, so that a Ctrl-C reaches it only through us; its lines are prefixed."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.was_told = False
        self.last_line = ""
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",  # a handler may print anything
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.reader = threading.Thread(target=self._copy, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _copy(self, lines: IO[str]) -> None:
        for line in lines:
            self.last_line = line.strip() or self.last_line
            with contextlib.suppress(OSError):  # nobody reads on; the child must not be held up
                print(f"{self.name:<6} | {line}", end="", flush=True)

    def runs(self) -> bool:
        return self.process.poll() is None

    def listens(self, port: int) -> bool:
        """Return True if this process, or one that it started, listens on the port."""
        try:
            parent = psutil.Process(self.process.pid)
            connections = [
                one for process in (parent, *parent.children(recursive=True)) for one in process.net_connections("inet")
            ]
        except psutil.AccessDenied:  # where the system tells nobody, that it runs has to do
            return self.runs()
        except psutil.NoSuchProcess:
            return False
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)

    def why_it_ended(self) -> str:
        """Return its last line, or its exit status if it printed none."""
        self.reader.join(1)
        return without_prefix(self.last_line) or f"exit status {self.process.returncode}"

    def tell(self) -> None:
        """Tell it to stop. Told twice, RQ's workers end at once, and the jobs that they run with them."""
        self.was_told = True
        if self.runs():
            self.process.send_signal(signal.SIGTERM)

    def kill_rest(self) -> None:
        """End what is left of its session, such as a job's process whose worker was killed."""
        kill_session(self.process.pid)


def kill_session(leader: int) -> None:
    """Kill all processes of the session that this process started."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)


def is_left_behind(port: int) -> bool:
    """Return True if a program of a `make up` that was killed still listens on the port; it is about to end."""
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections("inet"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                match psutil.Process(one.pid).cmdline():
                    case [_, "-m", "jobsvc.devservices.program", parent, *_]:
                        return not psutil.pid_exists(int(parent))
    return False


def without_prefix(line: str) -> str:
    """Return a line that a program printed as it ended, without the program's name."""
    return line.removeprefix("jobsvc: ")
