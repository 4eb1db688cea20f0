"""Everything in one terminal, from the servers to a worker, and all of it gone after Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import FrameType
from typing import IO

import psutil

from jobsvc import devservices
from jobsvc.clock import GRACE_SECONDS
from jobsvc.config import settings
from jobsvc.devservices import ServiceError

LAST_RESORT_SECONDS = 10
"""How long a child may take to end once it was told to hurry."""


class Child:
    """A process in a session of its own, so that a Ctrl-C reaches it only through us; its lines are prefixed."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.was_told = False
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.reader = threading.Thread(target=self._copy, args=(self.process.stdout,), daemon=True)
        self.reader.start()

    def _copy(self, lines: IO[str]) -> None:
        for line in lines:
            print(f"{self.name:<6} | {line}", end="", flush=True)

    def runs(self) -> bool:
        return self.process.poll() is None

    def tell(self) -> None:
        """Tell it to stop. Told twice, RQ's workers end at once, and the jobs that they run with them."""
        self.was_told = True
        if self.runs():
            self.process.send_signal(signal.SIGTERM)

    def kill_rest(self) -> None:
        """End what is left of its session, such as a job's process whose worker was killed."""
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)


class Up:
    """What `make up` started, and how it is stopped."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._servers: list[devservices.Server] = []
        self._signals = 0
        self._patience = 0.0

    def run(self) -> int:
        """Start everything, wait for Ctrl-C, stop everything; returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signalled)
        try:
            self._start()
            while not self._signals:
                if ended := [child.name for child in self._children if not child.runs()]:
                    print(f"jobsvc: the {ended[0]} ended by itself; stopping the rest", file=sys.stderr)
                    return 1
                time.sleep(0.1)
            return 0
        finally:
            self._stop()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        for child in self._children:
            child.tell()

    def _start(self) -> None:
        urls, self._servers = devservices.start()
        os.environ.update(urls)
        self._patience = settings().JOBSVC_SHUTDOWN_SECONDS + GRACE_SECONDS + LAST_RESORT_SECONDS
        migrate = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
        migration = subprocess.run(migrate, capture_output=True, text=True)
        if migration.returncode:
            raise ServiceError(f"the migrations failed:\n{migration.stderr}")
        if self._signals:
            return
        self._children = [Child("api", "-m", "jobsvc.serve"), Child("worker", "worker.py")]
        address = settings().address
        while not _answers(f"{address}/healthz"):
            if self._signals or not all(child.runs() for child in self._children):
                return
            time.sleep(0.05)
        print(
            f"\njobsvc is up; Ctrl-C stops all of it.\n"
            f"  API        {address}/jobs\n"
            f"  dashboard  {address}/rq/\n"
            f"  Postgres   {urls['DATABASE_URL']}\n"
            f"  Redis      {urls['REDIS_URL']}\n\n"
            f"""  Try it:    curl -X POST {address}/jobs -H "Content-Type: application/json" -d '{{}}'\n""",
            flush=True,
        )

    def _stop(self) -> None:
        for child in self._children:
            if not child.was_told:
                child.tell()
        for patience in (self._patience, LAST_RESORT_SECONDS):
            deadline = time.monotonic() + patience
            while any(child.runs() for child in self._children) and time.monotonic() < deadline:
                time.sleep(0.05)
            for child in self._children:
                child.tell()
        for child in self._children:
            child.kill_rest()
            child.reader.join(1)
        for server in reversed(self._servers):
            server.stop()
        print("jobsvc: all stopped", flush=True)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):  # noqa: S310  # our own address
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
