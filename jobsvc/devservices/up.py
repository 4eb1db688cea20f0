"""`make up`: servers, migrations, API and worker in one terminal; Ctrl-C ends them all."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from types import FrameType
from typing import NoReturn

from jobsvc import devservices
from jobsvc.config import Settings
from jobsvc.devservices import PLACEHOLDERS, Server, ServiceError
from jobsvc.devservices.children import Child, is_used_by_orphan, without_prefix
from jobsvc.devservices.folder import Folder
from jobsvc.devservices.watcher import Watcher
from jobsvc.errors import JobsvcError
from jobsvc.masking import mask_passwords
from jobsvc.processes.orphans import stop_gently, when_orphaned
from jobsvc.processes.pid_one import leave_pid_one
from jobsvc.processes.refusal import refuse_start
from jobsvc.processes.timetable import EXIT_SECONDS
from jobsvc.servers.listening import check_port

LAST_SECONDS = 2
"""Time for a child process to exit after its second SIGTERM; then it is killed."""


def run_up(parent: int | None = None) -> NoReturn:
    """Run everything until Ctrl-C, or until the process `parent` has exited; one line on stderr if it fails."""
    leave_pid_one()
    try:
        sys.exit(Up().run(parent))
    except (ServiceError, JobsvcError) as error:
        refuse_start(str(error))


class Up:
    """One `make up`: its child processes and servers. A watcher ends them if this process is killed."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._servers: list[Server] = []
        self._watcher: Watcher | None = None
        self._running: subprocess.Popen[str] | None = None
        self._is_stopping = False
        self._stop_seconds = 0.0

    def run(self, parent: int | None = None) -> int:
        """Start everything, wait for Ctrl-C, stop everything; returns the exit status.

        parent: the id of a process at whose end everything is stopped as well. Raises ServiceError and JobsvcError.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        if parent is not None:
            when_orphaned(parent, stop_gently)
        try:
            self._start()
            while not self._is_stopping:
                if ended := [child for child in self._children if not child.is_running()]:
                    raise ServiceError(f"the {ended[0].name} ended by itself: {ended[0].why_it_ended()}")
                time.sleep(0.1)
            return 0
        finally:
            self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._is_stopping = True
        for child in self._children:
            child.stop()
        if self._running:
            self._running.terminate()

    def _start(self) -> None:
        settings = devservices.check_settings()
        self._stop_seconds = settings.JOBSVC_SHUTDOWN_SECONDS + EXIT_SECONDS + LAST_SECONDS
        given = devservices.given_urls()
        os.environ.update(given)
        embedded = devservices.servers(given)
        folder = Folder(devservices.data_dir()) if embedded else None
        if folder and folder.exists:
            folder.take(self._stop_seconds)
        self._run("-c", "import jobsvc.rqsettings", **{**PLACEHOLDERS, **given})  # checks the handlers
        if self._is_stopping:
            return
        self._wait_for_port(settings)
        if folder:
            folder.take(self._stop_seconds)
        self._watcher = self._start_watcher(folder, embedded)
        urls, self._servers = devservices.start()
        os.environ.update(urls)
        self._run("-m", "jobsvc.migrate")
        if self._is_stopping:
            return
        self._start_programs(settings, self._watcher)
        if not self._is_stopping and all(child.is_running() for child in self._children):
            masked = {name: mask_passwords(url.partition("?")[0]) for name, url in given.items()}
            print(_banner(settings, {**urls, **masked}), flush=True)

    def _wait_for_port(self, settings: Settings) -> None:
        """Wait while a program of a killed `make up` uses the port. Raises ConfigError if another program does."""
        deadline = time.monotonic() + self._stop_seconds
        while is_used_by_orphan(settings.PORT) and time.monotonic() < deadline and not self._is_stopping:
            time.sleep(0.1)
        check_port(settings.host_address, settings.PORT)

    def _start_watcher(self, folder: Folder | None, embedded: Sequence[Server]) -> Watcher:
        """Start a watcher for the servers that will be started here, also if their start is interrupted."""
        lock = folder.watcher_lock() if folder else None
        watcher = Watcher.start(self._stop_seconds, lock)
        if lock is not None:
            os.close(lock)  # the watcher has inherited it
        for server in embedded:
            if not server.runs():
                watcher.add_server(server.name)
        return watcher

    def _start_programs(self, settings: Settings, watcher: Watcher) -> None:
        """Start the API and the worker; wait until the API answers, one of them ends, or a signal comes."""
        for name, program in (("api", "serve"), ("worker", "worker")):
            arguments = ("-m", "jobsvc.devservices.program", str(os.getpid()), str(watcher.pid), program)
            child = Child.start(name, *arguments)
            self._children.append(child)
            watcher.add_program(child.process.pid)
        api = self._children[0]
        while not (api.serves and _answers(settings.host_address, settings.PORT)):
            if self._is_stopping or not all(child.is_running() for child in self._children):
                return
            time.sleep(0.05)

    def _run(self, *arguments: str, **variables: str) -> None:
        """Run Python with these arguments until it exits, or a signal comes. Raises ServiceError with its last line."""
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
        if self._is_stopping:
            process.terminate()  # race: the signal came before `_running` was set
        out, errors = process.communicate()
        self._running = None
        if process.returncode and not self._is_stopping:
            lines = [line for line in errors.split("\n") + out.split("\n") if line.strip()]
            ours = [line for line in lines if line.startswith("jobsvc: ")] or lines
            raise ServiceError(without_prefix(ours[-1]) if ours else f"exit status {process.returncode}: {arguments}")

    def _stop(self) -> None:
        for child in self._children:
            if not child.is_stopping:
                child.stop()
        for seconds in (self._stop_seconds, LAST_SECONDS):
            deadline = time.monotonic() + seconds
            while any(child.is_running() for child in self._children) and time.monotonic() < deadline:
                time.sleep(0.05)
            for child in self._children:
                child.stop()
        for child in self._children:
            child.kill_session()
        for server in reversed(self._servers):
            server.stop()
        if self._watcher:
            self._watcher.end()
        if self._children or self._servers:
            with contextlib.suppress(OSError):  # the terminal may be closed
                print("jobsvc: all stopped", flush=True)


def _banner(settings: Settings, urls: dict[str, str]) -> str:
    key, hint = ("", "") if settings.is_open else (' -H "Authorization: Bearer $KEY"', "  (KEY: one that may write)")
    post = f"""curl -X POST {settings.address}/jobs{key} -H "Content-Type: application/json" -d '{{}}'{hint}"""
    console = f"  console    {settings.address}/ui/\n" if settings.JOBSVC_UI == "on" else ""
    return (
        f"\njobsvc is up; Ctrl-C stops all of it.\n{console}"
        f"  API        {settings.address}/jobs\n"
        f"  dashboard  {settings.address}/rq/\n"
        f"  Postgres   {urls['DATABASE_URL']}\n"
        f"  Redis      {urls['REDIS_URL']}\n\n"
        f"  Try it:    {post}\n"
    )


def _answers(address: str, port: int) -> bool:
    """Return True if an HTTP server answers there. Doesn't use a proxy of the environment."""
    with contextlib.closing(HTTPConnection(address, port, timeout=1)) as connection:
        try:
            connection.request("GET", "/healthz")
            connection.getresponse()
        except (OSError, HTTPException):
            return False
    return True
