"""The warning that no thread runs, found by requests alone: nothing else runs in such a process.

Members: the GIL kept between requests, from the start on or later; a fork that Python does not notice; and what must
not be taken for it: few requests, many requests, a server with threads, a fork that Python notices.
"""

import ctypes
import logging
import os
import subprocess
import sys
import time

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobsvc.api import threadcheck
from jobsvc.api.threadcheck import ThreadCheck

QUIET, MARGIN, ANSWER = 0.5, 0.05, 0.05


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    for name, seconds in (("QUIET_SECONDS", QUIET), ("MARGIN_SECONDS", MARGIN), ("ANSWER_SECONDS", ANSWER)):
        monkeypatch.setattr(threadcheck, name, seconds)
    app = Flask("test")
    app.add_url_rule("/", view_func=lambda: "")
    threadcheck.init_app(app)
    return app.test_client()


def pause() -> None:
    time.sleep(1.2 * QUIET)


def pause_with_gil() -> None:
    """Let the time pass as a server does that keeps the GIL while it waits for a request."""
    ctypes.PyDLL(None).usleep(int(1.2e6 * QUIET))


def warned(caplog: pytest.LogCaptureFixture) -> int:
    assert all(one.levelno == logging.WARNING and "--lazy-apps" in one.getMessage() for one in caplog.records)
    return len(caplog.records)


def is_installed(client: FlaskClient) -> bool:
    return isinstance(client.application.wsgi_app, ThreadCheck)


def test_threads_stopped_from_the_start_are_reported_at_the_first_request(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    pause_with_gil()
    for _ in range(3):
        assert client.get("/").status_code == 200
        pause_with_gil()
    assert warned(caplog) == 1
    assert not is_installed(client)


def test_threads_stopped_between_requests_are_reported(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    pause()  # as the rest of the application was loaded
    client.get("/")
    assert warned(caplog) == 0
    pause_with_gil()
    client.get("/")
    assert warned(caplog) == 1


def test_close_requests_prove_nothing(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        client.get("/")
        time.sleep(ANSWER / 5)
    assert is_installed(client)
    pause_with_gil()
    client.get("/")
    assert warned(caplog) == 1


def test_running_threads_are_not_reported(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/")
    pause()
    client.get("/")
    assert warned(caplog) == 0
    assert not is_installed(client)


def test_server_with_threads_needs_no_pause(client: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/", multithread=True)
    assert warned(caplog) == 0
    assert not is_installed(client)


@pytest.mark.parametrize(("fork", "count"), [("ctypes.PyDLL(None).fork()", 1), ("os.fork()", 0)])
def test_fork_outside_python_is_reported_at_the_first_request(fork: str, count: int) -> None:
    code = (
        "import ctypes, os, logging\n"
        "from flask import Flask\n"
        "from jobsvc.api import threadcheck\n"
        "logging.basicConfig()\n"
        "app = Flask('test')\n"
        "threadcheck.init_app(app)\n"
        f"pid = {fork}\n"
        "if pid == 0:\n"
        "    app.test_client().get('/', multithread=True)\n"
        "    app.test_client().get('/', multithread=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    assert done.stderr.count("threads do not run in this process") == count
