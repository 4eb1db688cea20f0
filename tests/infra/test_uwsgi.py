"""The API under uWSGI, whose defaults let no thread run.

Members: without --enable-threads the threads stand still between requests; with it, but loaded before the fork, they
are left in the master process; with --lazy-apps all is well. One request at a time, and several. Some versions of
uWSGI let threads run without --enable-threads; that they stand still is tested without uWSGI.
"""

import sys
from typing import Any

import httpx
import pytest

from tests.infra.packages import install
from tests.infra.wsgi import Site
from tests.support.service import POOL, eventually

UWSGI = ("uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "-p", "1", "--die-on-term", "--venv", sys.prefix)
WARNING = "threads do not run in this process"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, apart: dict[str, str]) -> dict[str, str]:
    return {**apart, **install("uwsgi", tmp_path_factory.mktemp("uwsgi"))}


def warnings_of(deployment: Site) -> list[str]:
    return [line for line in deployment.server.output.splitlines() if WARNING in line]


@pytest.mark.parametrize(
    "flags",
    [(), ("--enable-threads",), ("--enable-threads", "--threads", "16")],
    ids=["none", "before the fork", "several before the fork"],
)
def test_stopped_threads_are_reported_once(env: dict[str, str], flags: tuple[str, ...]) -> None:
    with Site(env, *UWSGI, *flags, "--module", "wsgi:app") as deployment:

        def is_reported() -> bool:
            deployment.post(delay=600)
            return bool(warnings_of(deployment))

        eventually(is_reported, 30, pause=2.5)
        for _ in range(2):
            deployment.post(delay=600)
        [line] = warnings_of(deployment)
        assert "--enable-threads" in line
        assert "--lazy-apps" in line


@pytest.mark.parametrize("threads", [(), ("--threads", "16")], ids=["one", "many"])
def test_with_both_flags_jobs_start_at_once(env: dict[str, str], threads: tuple[str, ...]) -> None:
    with Site(env, *UWSGI, "--enable-threads", "--lazy-apps", *threads, "--module", "wsgi:app") as deployment:
        worker = deployment.run(*POOL)
        assert worker.popen.poll() is None
        for _ in range(3):
            job_id = deployment.post()
            eventually(lambda job_id=job_id: deployment.status(job_id) == "COMPLETED", 15, pause=2.5)
        assert not warnings_of(deployment)
        events: httpx.Response = deployment.client.get(f"/jobs/{deployment.post(delay=0.5)}/events")
        expected: tuple[int, Any] = (200, "COMPLETED") if threads else (501, "threads")
        assert events.status_code == expected[0]
        assert expected[1] in events.text
