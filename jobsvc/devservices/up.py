"""Everything in one terminal, from the servers to a worker, and all of it gone after Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from types import FrameType

from jobsvc import devservices
from jobsvc.config import Settings
from jobsvc.devservices import Postgres, ServiceError, Valkey
from jobsvc.devservices.children import Child, is_left_behind, without_prefix
from jobsvc.devservices.folder import Folder
from jobsvc.devservices.watcher import Watcher
from jobsvc.masking import mask_passwords
from jobsvc.processes.orphans import stop_gently, when_orphaned
from jobsvc.processes.timetable import EXIT_SECONDS
from jobsvc.servers.listening import check_port

LAST_RESORT_SECONDS = 2
"""How long a child may take to end once it was told to hurry."""


class Up:
    """What `make up` started, and how it is stopped.

    It has its folder as long as it lives; and should it be killed, a watcher ends what it has started.
    """

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._servers: list[devservices.Server] = []
        self._watcher: Watcher | None = None
        self._running: subprocess.Popen[str] | None = None
        self._signals = 0
        self._patience = 0.0

    def run(self, parent: int | None = None) -> int:
        """Start everything, wait for Ctrl-C, stop everything; returns the exit status.

        parent: a process with which all of it ends, too.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signalled)
        if parent is not None:
            when_orphaned(parent, stop_gently)
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
        if self._running:
            self._running.terminate()

    def _start(self) -> None:
        settings = devservices.check_settings()
        self._patience = settings.JOBSVC_SHUTDOWN_SECONDS + EXIT_SECONDS + LAST_RESORT_SECONDS
        given = devservices.given_urls()
        os.environ.update(given)
        # The folder is nobody's where nothing is embedded.
        folder = Folder(devservices.data_dir()) if len(given) < len(devservices.STAND_INS) else None
        if folder and folder.exists:
            folder.take(self._patience)
        self._run("-c", "import jobsvc.rqsettings", **{**devservices.STAND_INS, **given})  # loads the handlers
        if self._signals:
            return
        deadline = time.monotonic() + self._patience
        while is_left_behind(settings.PORT) and time.monotonic() < deadline and not self._signals:
            time.sleep(0.1)
        check_port(settings.host_address, settings.PORT)
        if folder:
            folder.take(self._patience)
        self._watch(folder)
        self._announce_servers(given)
        urls, self._servers = devservices.start()
        os.environ.update(urls)
        self._run("-m", "flask", "--app", "wsgi", "db", "upgrade")
        if self._signals:
            return
        self._start_programs(settings)
        shown = {
            name: url if name not in given else mask_passwords(url.partition("?")[0]) for name, url in urls.items()
        }
        if all(child.runs() for child in self._children) and not self._signals:
            print(_banner(settings, **shown), flush=True)

    def _watch(self, folder: Folder | None) -> None:
        lock = folder.watcher_lock() if folder else None
        self._watcher = Watcher(devservices.data_dir(), self._patience, lock)
        if lock is not None:
            os.close(lock)  # the watcher has it now

    def _announce_servers(self, given: dict[str, str]) -> None:
        """Have the watcher stop the servers that are about to be started here, also if that is cut short."""
        assert self._watcher
        for variable, kind in (("DATABASE_URL", Postgres), ("REDIS_URL", Valkey)):
            server = kind(devservices.data_dir())
            if variable not in given and not server.runs():
                self._watcher.add_server(server.name)

    def _start_programs(self, settings: Settings) -> None:
        """Start the API and the worker, and wait until the API answers, one of them ends, or a signal comes."""
        assert self._watcher
        for name, program in (("api", "serve"), ("worker", "worker")):
            arguments = ("-m", "jobsvc.devservices.program", str(os.getpid()), str(self._watcher.pid), program)
            child = Child(name, *arguments)
            self._children.append(child)
            self._watcher.add_program(child.process.pid)
        api = self._children[0]
        # Another program may have taken the port meanwhile, and would answer as well.
        while not (api.listens(settings.PORT) and _answers(settings.host_address, settings.PORT)):
            if self._signals or not all(child.runs() for child in self._children):
                return
            time.sleep(0.05)

    def _run(self, *arguments: str, **variables: str) -> None:
        """Run Python to its end, which a signal brings about. Raises ServiceError, its last line, if it fails."""
        self._running = process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            start_new_session=True,
        )
        if self._watcher:
            self._watcher.add_program(process.pid)
        if self._signals:
            process.terminate()  # it came before the process could be told
        out, errors = process.communicate()
        self._running = None
        if process.returncode and not self._signals:
            lines = errors.split("\n") + out.split("\n")
            ours = [line for line in lines if line.startswith("jobsvc: ")] or [line for line in lines if line.strip()]
            raise ServiceError(without_prefix(ours[-1]) if ours else f"exit status {process.returncode}: {arguments}")

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
        if self._watcher:
            self._watcher.end()
        if self._children or self._servers:
            with contextlib.suppress(OSError):  # the terminal may have gone
                print("jobsvc: all stopped", flush=True)


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
