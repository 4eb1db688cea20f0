"""`make up` and `make demo`, as their commands: what they print, and that they print it only when it is true."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from tests.acceptance.test_startup import UP, refused
from tests.support.launcher import ROOT
from tests.support.service import Process, eventually, free_port

KEY = 'hunter2-"Zq9'


def demo(**env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobsvc", "demo"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True)


def test_up_with_a_taken_port_starts_nothing(tmp_path: Path) -> None:
    embedded = {"DATABASE_URL": "", "REDIS_URL": "", "JOBSVC_DEV_DIR": str(tmp_path / "data")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert refused(*UP, PORT=port, **embedded).startswith(f"PORT: {port} is taken on 127.0.0.1: ")
    assert not (tmp_path / "data").exists()


def test_demo_without_a_service_fails_with_one_line() -> None:
    port = free_port(None)
    done = demo(PORT=str(port), HOST="::1")
    assert done.returncode == 1
    assert done.stderr.startswith(f"demo: no service at http://[::1]:{port}: ")
    assert len(done.stderr.splitlines()) == 1


def test_up_with_keys_prints_no_secret_and_leaves_no_child(apart: dict[str, str]) -> None:
    env = {**apart, "PORT": str(free_port(None)), "JOBSVC_API_KEYS": f"me:write:{KEY}", "JOBSVC_WORKERS": "1"}
    up = Process(*UP, env=env)
    try:
        eventually(lambda: "Try it:" in up.output or up.popen.poll() is not None, 90)
        assert f'http://localhost:{env["PORT"]}/jobs -H "Authorization: Bearer $KEY" ' in up.output
        assert KEY not in up.output
        assert apart["DATABASE_URL"].split(":")[2].partition("@")[0] not in up.output
        assert demo(**env).returncode == 0
        children = psutil.Process(up.popen.pid).children(recursive=True)
        os.kill(children[0].pid, signal.SIGKILL)
        assert up.wait(60) == 1
        assert "jobsvc: the api ended by itself: " in up.output
        for child in children:
            eventually(lambda child=child: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    finally:
        up.kill()
