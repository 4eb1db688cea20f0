"""Versions of jobsvc that run side by side on the same servers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from tests.support.service import POOL, Process, Service, eventually


def check_out(commit: str, folder: Path) -> Path:
    """Put the files of a commit into a new folder. Skips the test in a clone that lacks the commit."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if archive.returncode != 0:
        pytest.skip(f"the commit {commit} is not in this clone")
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


class Version:
    """An API and a worker of one version, whose files are in a folder; started and stopped together."""

    def __init__(self, env: dict[str, str], folder: Path = ROOT) -> None:
        self._env, self._prefix = env, ("env", "-C", str(folder))
        self.ran: list[Process] = []
        self.services: list[Service] = []

    def migrate(self, *options: str) -> None:
        command = [*self._prefix, sys.executable, "-m", "jobsvc.migrate", *options]
        subprocess.run(command, env={**os.environ, **self._env}, check=True, capture_output=True)

    def start(self) -> Service:
        self.service = Service(self._env, prefix=self._prefix)
        self.services.append(self.service)
        self._worker = self.service.run(*self._prefix, *POOL, env={"JOBSVC_WORKERS": "2", "JOBSVC_CONCURRENCY": "4"})
        self.ran += self.service.processes
        eventually(lambda: "Worker Started" in self._worker.output, 60)
        return self.service

    def stop(self) -> None:
        """Stop both as an operator does: SIGTERM, then wait."""
        for process in (self._worker, self.service.api):
            process.popen.send_signal(signal.SIGTERM)
        for process in (self._worker, self.service.api):
            assert process.wait(60) == 0, process.output

    def close(self) -> None:
        """Kill what still runs; no process may have logged a traceback."""
        outputs = [process.output for process in self.ran]
        for process in self.ran:
            process.kill()
        for service in self.services:
            service.client.close()
        self.ran = []
        for output in outputs:
            assert "Traceback" not in output, output
