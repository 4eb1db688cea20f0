"""`jobsvc up`: servers, migrations, API and worker in one terminal; Ctrl-C ends them all."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import NoReturn

from jobsvc import devservices
from jobsvc.config import Settings
from jobsvc.devservices import PLACEHOLDERS, Server, ServiceError
from jobsvc.devservices.children import has_orphan, kill_session, print_line, without_prefix
from jobsvc.devservices.folder import Folder
from jobsvc.devservices.handler_files import HandlerFiles, delete_bytecode
from jobsvc.devservices.programs import LAST_SECONDS, Programs
from jobsvc.devservices.watcher import Watcher
from jobsvc.errors import ConfigError, JobsvcError
from jobsvc.masking import mask_passwords
from jobsvc.processes.orphans import stop_gently, when_orphaned
from jobsvc.processes.pid_one import leave_pid_one
from jobsvc.processes.refusal import refuse_start
from jobsvc.processes.timetable import EXIT_SECONDS
from jobsvc.servers.listening import check_port

LOAD_HANDLERS = ("-c", "import jobsvc.rqsettings")
"""Arguments of Python for a program that loads the handlers, and fails if it can't."""

LOAD_SECONDS = 60
"""Longest time for changed handlers to be loaded."""

SHOWN = 3
"""Maximum number of changed files that a line names."""


def run_up(parent: int | None = None) -> NoReturn:
    """Run everything until Ctrl-C, or until the process `parent` has exited; one line on stderr if it fails."""
    leave_pid_one()
    try:
        sys.exit(Up().run(parent))
    except (ServiceError, JobsvcError) as error:
        refuse_start(str(error))


class Up:
    """One `jobsvc up`: its programs and servers. A watcher ends them if this process is killed."""

    def __init__(self) -> None:
        self._programs: Programs | None = None
        self._files: HandlerFiles | None = None
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
            while not self._is_stopping and self._programs and self._files:
                self._programs.check()
                if changed := self._files.changed():
                    self._reload(changed)
                time.sleep(0.1)
            return 0
        finally:
            self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._programs:
            self._programs.signal(again=self._is_stopping)
        self._is_stopping = True
        if self._running:
            self._running.terminate()

    def _start(self) -> None:
        settings = devservices.check_settings()
        self._stop_seconds = settings.JOBSVC_SHUTDOWN_SECONDS + EXIT_SECONDS + LAST_SECONDS
        given = devservices.given_urls()
        os.environ.update(given)
        embedded = devservices.servers(given)
        for server in embedded:
            server.wheel()  # raises before anything is started
        folder = Folder(devservices.data_dir()) if embedded else None
        if folder and folder.exists:
            folder.take(self._stop_seconds)
        self._files = HandlerFiles(settings.JOBSVC_HANDLERS)
        self._run(*LOAD_HANDLERS, variables=PLACEHOLDERS | given)
        if self._is_stopping:
            return
        self._wait_for_port(settings)
        if folder:
            folder.take(self._stop_seconds)
        self._watcher = self._start_watcher(folder, embedded)
        if stopped := [server.name for server in embedded if not server.runs()]:
            print_line(f"starting {' and '.join(stopped)}, data in {devservices.data_dir()}")
        urls, self._servers = devservices.start()
        os.environ.update(urls)
        print_line("migrating the tables")
        self._run("-m", "jobsvc.migrate")
        if self._is_stopping:
            return
        print_line("starting the API and a worker")
        self._programs = Programs(self._watcher)
        self._start_programs(settings, self._programs)
        if not self._is_stopping and self._programs.all_run():
            masked = {name: mask_passwords(url.partition("?")[0]) for name, url in given.items()}
            print(_banner(settings, {**urls, **masked}), flush=True)

    def _wait_for_port(self, settings: Settings) -> None:
        """Wait while the API of a killed `jobsvc up` may use the port. Raises ConfigError if another program does."""
        deadline = time.monotonic() + self._stop_seconds
        while not self._is_stopping:
            try:
                check_port(settings.host_address, settings.PORT)
                break
            except ConfigError:
                if time.monotonic() > deadline or not has_orphan():
                    raise
                time.sleep(0.1)

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

    def _start_programs(self, settings: Settings, programs: Programs) -> None:
        """Start the API and the worker; wait until the API answers, one of them ends, or a signal comes."""
        api = programs.start("api")
        programs.start("worker")
        while not (api.is_ready and _answers(settings.host_address, settings.PORT)):
            if self._is_stopping or not programs.all_run():
                return
            time.sleep(0.05)

    def _reload(self, changed: Sequence[Path]) -> None:
        """Restart the programs, unless the handlers can't be loaded; then one line says why."""
        delete_bytecode(changed)
        names = ", ".join(os.path.relpath(path) for path in changed[:SHOWN]) + (" …" if len(changed) > SHOWN else "")
        try:
            self._run(*LOAD_HANDLERS, seconds=LOAD_SECONDS)
        except ServiceError as error:
            print_line(f"{names} changed, but is not used yet: {error}")
            return
        if self._programs and not self._is_stopping:
            print_line(f"{names} changed: the API and the worker restart")
            self._programs.restart(lambda: self._is_stopping)

    def _run(self, *arguments: str, seconds: float | None = None, variables: Mapping[str, str] = {}) -> None:
        """Run Python with these arguments until it exits, or a signal comes.

        Raises ServiceError with its last line, or if it still runs after `seconds`.
        """
        self._running = process = subprocess.Popen(
            [sys.executable, *arguments],
            env=os.environ | variables,
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
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_session(process.pid)
            process.communicate()
            raise ServiceError(f"the handlers were not loaded within {seconds} s") from None
        finally:
            self._running = None
        if process.returncode and not self._is_stopping:
            lines = [line for line in errors.split("\n") + out.split("\n") if line.strip()]
            ours = [line for line in lines if line.startswith("jobsvc: ")] or lines
            raise ServiceError(without_prefix(ours[-1]) if ours else f"exit status {process.returncode}: {arguments}")

    def _stop(self) -> None:
        if self._programs:
            self._programs.stop(self._stop_seconds)
        for server in reversed(self._servers):
            server.stop()
        if self._watcher:
            self._watcher.end()
        if self._programs or self._servers:
            print_line("all stopped")


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
