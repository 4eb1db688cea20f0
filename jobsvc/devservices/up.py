"""Everything in one terminal, from the servers to a worker, and all of it gone after Ctrl-C."""

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

from jobsvc import devservices
from jobsvc.config import settings
from jobsvc.devservices import ServiceError

LAST_RESORT_SECONDS = 10
"""How long a child may take to end once it was told to hurry."""


class Child:
    """A process in a session of its own, so that a Ctrl-C reaches it only through us; its lines are prefixed."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._copy, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _copy(self, lines: IO[str]) -> None:
        for line in lines:
            print(f"{self.name:<6} | {line}", end="", flush=True)

    def runs(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, deadline: float) -> bool:
        """Whether the process has ended by `deadline`."""
        try:
            self.process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1)
        return True


class Up:
    """What `make up` started, and how it is told to stop."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._servers: list[devservices.Server] = []
        self._signals = 0

    def run(self) -> int:
        """Start everything, wait for Ctrl-C, stop everything; returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._told_to_stop)
        try:
            self._start()
            while not self._signals:
                ended = next((child for child in self._children if not child.runs()), None)
                if ended is not None:
                    print(f"jobsvc: the {ended.name} ended by itself; stopping the rest", file=sys.stderr)
                    return 1
                time.sleep(0.1)
            return 0
        finally:
            self._stop()

    def _told_to_stop(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        for child in self._children:
            if child.runs():
                # The second one makes RQ's workers end at once, with the jobs that they run.
                child.process.send_signal(signal.SIGTERM)

    def _start(self) -> None:
        urls, self._servers = devservices.start()
        os.environ.update(urls)
        settings()
        migration = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"], capture_output=True, text=True
        )
        if migration.returncode:
            raise ServiceError(f"the migrations failed:\n{migration.stderr}")
        self._children = [Child("api", "-m", "jobsvc.serve"), Child("worker", "worker.py")]
        address = f"http://{'localhost' if settings().HOST == '127.0.0.1' else settings().HOST}:{settings().PORT}"
        while (
            not _answers(f"{address}/healthz") and not self._signals and all(child.runs() for child in self._children)
        ):
            time.sleep(0.05)
        if self._signals or not all(child.runs() for child in self._children):
            return
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
        if not self._signals:
            self._told_to_stop(signal.SIGTERM, None)
        deadline = time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS
        for child in self._children:
            while not child.wait_until(min(deadline, time.monotonic() + 0.5)):
                if time.monotonic() >= deadline:
                    self._told_to_stop(signal.SIGTERM, None)
                    deadline = time.monotonic() + LAST_RESORT_SECONDS
                    if child.wait_until(deadline):
                        break
                    child.process.kill()
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
