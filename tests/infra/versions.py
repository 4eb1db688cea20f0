"""Versions of jobsvc that run side by side on the same servers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launcher import ROOT
from tests.support.service import POOL, Service, eventually


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
        self.services: list[Service] = []
        self.outputs: list[str] = []

    def migrate(self, *options: str) -> None:
        command = [*self._prefix, sys.executable, "-m", "jobsvc.migrate", *options]
        subprocess.run(command, env={**os.environ, **self._env}, check=True, capture_output=True)

    def start(self) -> Service:
        self.service = Service(self._env, prefix=self._prefix)
        self.services.append(self.service)
        self._worker = self.service.run(*self._prefix, *POOL, env={"JOBSVC_WORKERS": "2", "JOBSVC_CONCURRENCY": "4"})
        eventually(lambda: "Worker Started" in self._worker.output, 60)
        return self.service

    def stop(self) -> None:
        """Stop both as an operator does: SIGTERM, then wait."""
        for process in (self._worker, self.service.api):
            process.popen.send_signal(signal.SIGTERM)
        for process in (self._worker, self.service.api):
            assert process.wait(60) == 0, process.output

    def close(self) -> None:
        """Kill what still runs, and keep what all processes have logged in `outputs`."""
        self.outputs += [process.output for service in self.services for process in service.processes]
        for service in self.services:
            service.close()
        self.services = []
