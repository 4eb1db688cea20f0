"""The watcher: a process that ends the programs and servers of a `jobsvc up` that was killed."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from functools import cached_property

from jobsvc.devservices import ServiceError, servers
from jobsvc.devservices.children import kill_session

END_SECONDS = 10
"""Longest time until the watcher has exited, if it has nothing to do."""


class Watcher:
    """The watcher as seen by `jobsvc up`. It is no child of it, and has its own session."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @classmethod
    def start(cls, stop_seconds: float, lock: int | None) -> "Watcher":
        """Start a watcher.

        stop_seconds: the time that programs have to end. lock: a file descriptor that the watcher keeps open.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", "jobsvc.devservices.watcher", str(stop_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=() if lock is None else (lock,),
            text=True,
            start_new_session=True,  # neither Ctrl-C nor the end of the terminal reaches it
        )
        return cls(process)

    @cached_property
    def pid(self) -> int:
        """Its process id; 0 if it could not start."""
        assert self._process.stdout is not None
        pid = int(self._process.stdout.readline() or 0)
        self._process.wait()  # the process that forked the watcher
        return pid

    def add_program(self, pid: int) -> None:
        """Let it end this program and all processes of the session that the program leads."""
        self._send(f"program {pid}")

    def add_server(self, name: str) -> None:
        """Let it stop this embedded server."""
        self._send(f"server {name}")

    def end(self) -> None:
        """End the watcher, after everything that was added has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self.pid:
            self._send("done")
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            select.select([self._process.stdout], [], [], END_SECONDS)  # it is closed when the watcher exits

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the watcher was killed, which does no harm while `jobsvc up` lives
            print(line, file=self._process.stdin, flush=True)


def main(stop_seconds: float) -> None:
    """Read programs and servers from standard input until `done`; if it ends without `done`, end them all."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    print(os.getpid(), flush=True)
    programs: dict[int, int] = {}  # by process id, a file descriptor that means this process even after it ended
    names: list[str] = []
    for line in sys.stdin:
        match line.split():
            case ["program", pid]:
                with contextlib.suppress(ProcessLookupError):
                    programs[int(pid)] = os.pidfd_open(int(pid))
                _forget_ended(programs)
            case ["server", name]:
                names.append(name)
            case ["done"]:
                return
    _end_programs(programs, stop_seconds)
    for server in reversed(servers()):
        if server.name in names:
            with contextlib.suppress(ServiceError):
                server.stop()
    with contextlib.suppress(OSError):  # the terminal may be closed
        print("jobsvc: jobsvc up was killed; its programs and servers are stopped", file=sys.stderr, flush=True)


def _forget_ended(programs: dict[int, int]) -> None:
    for pid, descriptor in list(programs.items()):
        if _has_ended(descriptor, 0):
            os.close(programs.pop(pid))


def _has_ended(descriptor: int, seconds: float) -> bool:
    """Return True if the process has ended, or ends within this time."""
    return bool(select.select([descriptor], [], [], max(seconds, 0))[0])


def _end_programs(programs: dict[int, int], stop_seconds: float) -> None:
    for descriptor in programs.values():
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    deadline = time.monotonic() + stop_seconds
    for pid, descriptor in programs.items():
        _has_ended(descriptor, deadline - time.monotonic())
        kill_session(pid)


if __name__ == "__main__":
    main(float(sys.argv[1]))
