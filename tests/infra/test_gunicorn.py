"""The API under gunicorn, as the README starts it.

Members: the kinds of workers (threads, one request at a time), --preload, and the installed form (the settings file
named with -c); what stops it (SIGTERM, Ctrl-C) while clients follow and wait; a wrong setting, which must not have
gunicorn start workers for ever.
"""

import os
import signal
import subprocess
import threading

import httpx
import pytest

from tests.infra.packages import install
from tests.infra.wsgi import STREAM_HEADERS, Site
from tests.support.launcher import ROOT
from tests.support.service import POOL, Process, eventually

GUNICORN = ("gunicorn", "-b", "127.0.0.1:{port}")
README = (*GUNICORN, "--threads", "32", "wsgi:app")
STOP_SECONDS = 8
"""Less than 3 s, on a busy machine. Without the end of streams it is `graceful_timeout`, 10 or gunicorn's own 30."""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, apart: dict[str, str]) -> dict[str, str]:
    return {**apart, **install("gunicorn", tmp_path_factory.mktemp("gunicorn"))}


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (README, signal.SIGTERM),
        (README, signal.SIGINT),
        ((*GUNICORN, "wsgi:app"), signal.SIGTERM),
        ((*GUNICORN, "--preload", "-w", "2", "wsgi:app"), signal.SIGTERM),
        ((*GUNICORN, "-c", str(ROOT / "gunicorn.conf.py"), "jobsvc.app:create_app()"), signal.SIGTERM),
    ],
    ids=["sigterm", "ctrl-c", "short", "preload", "named"],
)
def test_gunicorn_stops_in_time_with_an_open_stream(
    env: dict[str, str], command: tuple[str, ...], number: signal.Signals
) -> None:
    with Site(env, *command) as deployment:
        seconds, reported = deployment.stop_with_a_stream_open(number)
        assert reported == ["SCHEDULED"]
        assert seconds < STOP_SECONDS, deployment.server.output
        assert "Traceback" not in deployment.server.output


def test_job_runs_and_waiting_client_is_answered_at_the_stop(env: dict[str, str]) -> None:
    with Site(env, *README) as deployment:
        deployment.run(*POOL)
        done = deployment.client.post("/jobs", json={"payload": {"result": 7}}, headers={"Prefer": "wait=20"})
        assert (done.status_code, done.json()["result"]) == (200, 7)
        with deployment.client.stream(
            "GET", f"/jobs/{deployment.post(delay=0.5)}/events", headers=STREAM_HEADERS
        ) as reply:
            assert '"COMPLETED"' in reply.read().decode()
        replies: list[httpx.Response] = []
        url, body = f"{deployment.url}/jobs", {"delay": 600, "tags": ["waited for"]}

        def wait() -> None:
            replies.append(httpx.post(url, json=body, headers={"Prefer": "wait=60"}, timeout=70))

        client = threading.Thread(target=wait)
        client.start()
        eventually(lambda: deployment.client.get("/jobs", params={"tag": "waited for"}).json()["jobs"])
        deployment.server.popen.send_signal(signal.SIGTERM)
        client.join(STOP_SECONDS)
        deployment.client.close()
        assert [reply.status_code for reply in replies] == [202]
        assert deployment.server.wait(STOP_SECONDS) == 0


def test_without_threads_a_stream_is_refused_permanently(env: dict[str, str]) -> None:
    with Site(env, *GUNICORN, "--threads", "1", "wsgi:app") as deployment:
        job_id = deployment.post(delay=600)
        reply = deployment.client.get(f"/jobs/{job_id}/events", headers=STREAM_HEADERS)
        assert reply.status_code == 501
        assert "threads" in reply.json()["detail"]
        assert "Retry-After" not in reply.headers
        waited = deployment.client.post("/jobs", json={"delay": 600}, headers={"Prefer": "wait=30"})
        assert waited.status_code == 202
        assert "Preference-Applied" not in waited.headers


@pytest.mark.parametrize("more", [(), ("--preload",), ("-w", "3")], ids=["plain", "preload", "workers"])
def test_wrong_setting_stops_gunicorn_with_one_line(env: dict[str, str], more: tuple[str, ...]) -> None:
    process = Process(*[one.format(port=0) for one in GUNICORN], *more, "wsgi:app", env={**env, "PORT": "x"})
    try:
        assert process.wait(40) != 0
        lines = [line for line in process.output.splitlines() if "PORT" in line]
        assert lines
        assert len(set(lines)) == 1
        assert lines[0].startswith("jobsvc: PORT: ")
        assert "Traceback" not in process.output
    finally:
        process.kill()


def test_settings_file_is_harmless_for_other_applications(env: dict[str, str]) -> None:
    command = ("gunicorn", "--check-config", "-c", str(ROOT / "gunicorn.conf.py"), "wsgiref.simple_server:demo_app")
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
