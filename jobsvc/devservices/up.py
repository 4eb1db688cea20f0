"""Everything in one terminal, from the servers to a worker, and all of it gone after Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from types import FrameType
from typing import IO

import psutil

from jobsvc import devservices
from jobsvc.config import Settings
from jobsvc.devservices import ServiceError
from jobsvc.listening import check_port
from jobsvc.masking import mask_passwords
from jobsvc.shutdown import EXIT_SECONDS

LAST_RESORT_SECONDS = 2
"""How long a child may take to end once it was told to hurry."""


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
        return _without_prefix(self.last_line) or f"exit status {self.process.returncode}"

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
                if ended := [child for child in self._children if not child.runs()]:
                    raise ServiceError(f"the {ended[0].name} ended by itself: {ended[0].why_it_ended()}")
                time.sleep(0.1)
            return 0
        finally:
            self._stop()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        for child in self._children:
            child.tell()

    def _start(self) -> None:
        settings = devservices.check_settings()
        given = devservices.given_urls()
        os.environ.update(given)
        _run("-c", "import jobsvc.rqsettings", **{**devservices.STAND_INS, **given})  # loads the handlers
        check_port(settings.host_address, settings.PORT)
        urls, self._servers = devservices.start()
        os.environ.update(urls)
        self._patience = settings.JOBSVC_SHUTDOWN_SECONDS + EXIT_SECONDS + LAST_RESORT_SECONDS
        _run("-m", "flask", "--app", "wsgi", "db", "upgrade")
        if self._signals:
            return
        self._children = [Child("api", "-m", "jobsvc.serve"), Child("worker", "worker.py")]
        api = self._children[0]
        # Another program may have taken the port meanwhile, and would answer as well.
        while not (api.listens(settings.PORT) and _answers(settings.host_address, settings.PORT)):
            if self._signals or not all(child.runs() for child in self._children):
                return
            time.sleep(0.05)
        shown = {
            name: url if name not in given else mask_passwords(url.partition("?")[0]) for name, url in urls.items()
        }
        print(_banner(settings, **shown), flush=True)

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
        if self._children or self._servers:
            print("jobsvc: all stopped", flush=True)


def _run(*arguments: str, **variables: str) -> None:
    """Run Python to its end. Raises ServiceError, its last line, if it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
    )
    if done.returncode:
        lines = done.stderr.split("\n") + done.stdout.split("\n")
        ours = [line for line in lines if line.startswith("jobsvc: ")] or [line for line in lines if line.strip()]
        raise ServiceError(_without_prefix(ours[-1]) if ours else f"exit status {done.returncode}: {arguments}")


def _without_prefix(line: str) -> str:
    return line.removeprefix("jobsvc: ")


def _banner(settings: Settings, DATABASE_URL: str, REDIS_URL: str) -> str:  # noqa: N803  # the variables' names
    key, hint = ("", "") if settings.is_open else (' -H "Authorization: Bearer $KEY"', "  (KEY: one that may write)")
    post = f"""curl -X POST {settings.address}/jobs{key} -H "Content-Type: application/json" -d '{{}}'{hint}"""
    return (
        f"\njobsvc is up; Ctrl-C stops all of it.\n"
        f"  API        {settings.address}/jobs\n"
        f"  dashboard  {settings.address}/rq/\n"
        f"  Postgres   {DATABASE_URL}\n"
        f"  Redis      {REDIS_URL}\n\n"
        f"  Try it:    {post}\n"
    )


def _answers(address: str, port: int) -> bool:
    """Return True if an HTTP server answers there. No proxy is asked, whatever the environment says."""
    connection = HTTPConnection({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), port, timeout=1)  # noqa: S104
    try:
        connection.request("GET", "/healthz")
        connection.getresponse()
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
    return True
