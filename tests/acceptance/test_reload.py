"""`jobsvc up` restarts the API and the worker when files of the handlers change, in a folder outside the checkout."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.launcher import ROOT
from tests.support.service import Process, eventually, free_port

HANDLERS = """
import sys
import time
from jobsvc import Context, handler

@handler("RELOADED", retry={"max": 0})
def reloaded(payload: dict, ctx: Context) -> str:
    time.sleep(payload.get("seconds", 0))
    return "VERSION"
"""

FAILS_AT_START = """
if "jobsvc.devservices.program" in sys.orig_argv:
    raise RuntimeError("no start")
"""


class Up:
    """A `jobsvc up` with the module `work` in a folder of its own."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.write("old")
        port = str(free_port(None))
        self.url = f"http://localhost:{port}/jobs"
        own = {"PORT": port, "JOBSVC_HANDLERS": "work", "JOBSVC_WORKERS": "1", "PYTHONPATH": str(ROOT)}
        self.process = Process(sys.executable, "-m", "jobsvc", "up", env={**env, **own}, cwd=folder)
        eventually(lambda: "jobsvc is up" in self.output, 90)

    @property
    def output(self) -> str:
        assert self.process.popen.poll() is None, self.process.output
        return self.process.output

    def write(self, version: str, more: str = "") -> None:
        """Write the module; its handler returns the version."""
        (self.folder / "work.py").write_text(HANDLERS.replace("VERSION", version) + more)

    def post(self, **payload: float) -> str:
        """Post a job, while the API may be restarting; return its URL."""

        def post() -> str | None:
            try:
                return str(httpx.post(self.url, json={"type": "RELOADED", "payload": payload}).json()["jobId"])
            except httpx.TransportError:
                return None

        return f"{self.url}/{eventually(post, 60)}"

    def show(self, url: str) -> dict[str, object]:
        """Return the job, as soon as the API answers."""

        def get() -> dict[str, object] | None:
            try:
                return dict(httpx.get(url).json())
            except httpx.TransportError:
                return None

        return eventually(get, 60) or {}

    def result(self, url: str) -> object:
        """Return the result of the job, when it has ended."""
        return eventually(lambda: (job := self.show(url))["status"] in ("COMPLETED", "FAILED") and job, 60)["result"]

    def runs(self, version: str) -> bool:
        return self.result(self.post()) == version


@pytest.fixture
def up(tmp_path: Path, apart: dict[str, str]) -> Iterator[Up]:
    running = Up(tmp_path, apart)
    yield running
    running.process.kill()


def test_changed_handler_runs_and_the_running_job_ends_uninterrupted(up: Up) -> None:
    running = up.post(seconds=8)
    eventually(lambda: up.show(running)["status"] == "PROCESSING", 30)
    up.write("new")
    eventually(lambda: "jobsvc: work.py changed: the API and the worker restart" in up.output, 60)
    eventually(lambda: up.output.count("Worker Started") == 2, 60)
    assert up.result(up.post()) == "new"
    assert up.result(running) == "old"
    assert up.show(running)["attempts"] == 1


def test_broken_file_is_reported_and_what_runs_goes_on(up: Up) -> None:
    up.write("broken", "def f(:\n")
    line = "jobsvc: work.py changed, but is not used yet: JOBSVC_HANDLERS: work.py, line 10: invalid syntax: def f(:\n"
    eventually(lambda: line in up.output, 60)
    assert up.runs("old")
    assert up.output.count("Worker Started") == 1
    up.write("mended")
    eventually(lambda: up.runs("mended"), 60)


def test_program_that_fails_at_its_start_is_started_once_for_each_change(up: Up) -> None:
    up.write("failing", FAILS_AT_START)
    why = "JOBSVC_HANDLERS: work.py, line 12: RuntimeError: no start"
    line = f" did not start, and starts again when a file changes: {why}\n"
    eventually(lambda: up.output.count(line) == 2, 60)
    up.write("mended")
    eventually(lambda: up.runs("mended"), 90)
    assert up.output.count(line) == 2
    assert up.output.count("restart\n") == 2
