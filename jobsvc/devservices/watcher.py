"""A process beside `make up`, which ends what that one has started if it is killed."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import psutil

from jobsvc.devservices import Postgres, ServiceError, Valkey
from jobsvc.devservices.children import kill_session

END_SECONDS = 10
"""How long the watcher may take to end when there is nothing for it to do."""


class Watcher:
    """The watcher, seen from `make up`, whose child it is not, and in a session of its own.

    lock: a file descriptor that it holds until nothing is left.
    patience: seconds that programs may take to end.
    """

    def __init__(self, root: Path, patience: float, lock: int | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jobsvc.devservices.watcher", str(root), str(patience)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=() if lock is None else (lock,),
            text=True,
            start_new_session=True,  # a terminal that is closed, or Ctrl-C, doesn't reach it
        )

    @cached_property
    def pid(self) -> int:
        """Its process id; 0 if it could not start."""
        assert self._process.stdout is not None
        pid = int(self._process.stdout.readline() or 0)
        self._process.wait()  # the process that has started the watcher
        return pid

    def add_program(self, pid: int) -> None:
        """Have it end this program, which leads a session, with all that belongs to that."""
        self._tell(f"program {pid}")

    def add_server(self, name: str) -> None:
        """Have it stop this embedded server."""
        self._tell(f"server {name}")

    def end(self) -> None:
        """End it: all has ended that it was told of."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self.pid:
            self._tell("done")
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            select.select([self._process.stdout], [], [], END_SECONDS)  # it is closed when the watcher has ended

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # it was killed: nothing is lost as long as `make up` lives
            print(line, file=self._process.stdin, flush=True)


def main(root: Path, patience: float) -> None:
    """Read what is to be watched, until `done`; at an end without it, end all of that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    print(os.getpid(), flush=True)
    programs: list[psutil.Process] = []
    servers: list[str] = []
    for line in sys.stdin:
        match line.split():
            case ["program", pid]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    programs.append(psutil.Process(int(pid)))
            case ["server", name]:
                servers.append(name)
            case ["done"]:
                return
    _end_programs(programs, patience)
    for server in (Valkey(root), Postgres(root)):
        if server.name in servers:
            with contextlib.suppress(ServiceError):
                server.stop()
    with contextlib.suppress(OSError):  # the terminal may have gone
        print("jobsvc: make up was killed; all that it had started is stopped", file=sys.stderr, flush=True)


def _end_programs(programs: list[psutil.Process], patience: float) -> None:
    for program in programs:
        with contextlib.suppress(psutil.NoSuchProcess):
            program.terminate()
    psutil.wait_procs(programs, timeout=patience)
    for program in programs:
        kill_session(program.pid)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
