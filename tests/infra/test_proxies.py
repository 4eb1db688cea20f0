"""nginx and HAProxy in front of two API hosts, by the files of deploy/: TLS, a path prefix, waits and event streams."""

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy import files
from tests.infra.debian import program
from tests.support.browser import installed, launched
from tests.support.http import basic, bearer
from tests.support.service import Process, Service, eventually, free_port

KEY = "k-admin"
PREFIX = "/jobsvc"
WAIT_SECONDS = 25
"""Longer than the heartbeats of a stream, 15 s, and than default timeouts of many proxies."""


OK = (200, 304, 401)
"""Statuses that the console's requests may get; a browser sends the key after the first 401."""


class Proxied:
    """A proxy in front of two API processes, and a client of it."""

    def __init__(self, name: str, folder: Path, env: dict[str, str]) -> None:
        command, port = program(name), free_port(None)
        program("openssl")
        settings = {**env, "JOBSVC_API_KEYS": f"boss:admin:{KEY}", "JOBSVC_TRUST_PROXY": "1"}
        self.apis = [Service(settings, key=KEY) for _ in range(2)]
        self.apis[0].worker()
        certificate = files.certificate(folder)
        apis = [f"127.0.0.1:{one.port}" for one in self.apis]
        if name == "nginx":
            self.proxy = Process(command, "-e", "stderr", "-c", str(files.nginx(folder, port, apis)))
        else:
            self.proxy = Process(command, "-f", str(files.haproxy(folder, port, apis)))
        self.url = f"https://localhost:{port}{PREFIX}"
        self.client = httpx.Client(
            base_url=self.url, verify=ssl.create_default_context(cafile=certificate), headers=bearer(KEY), timeout=60
        )

    def answers(self) -> bool:
        assert self.proxy.popen.poll() is None, self.proxy.output
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self.client.close()
        self.proxy.kill()
        for api in self.apis:
            api.close()


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def proxied(
    request: pytest.FixtureRequest, apart: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    made = Proxied(request.param, tmp_path_factory.mktemp(request.param), apart)
    try:
        eventually(made.answers, 30)
        yield made
    finally:
        made.close()


def test_job_is_posted_and_waited_for_under_the_prefix(proxied: Proxied) -> None:
    reply = proxied.client.post("/jobs", json={"payload": {"result": "漢"}}, headers={"Prefer": "wait=20"})
    assert (reply.status_code, reply.json()["result"]) == (200, "漢")
    posted = proxied.client.post("/jobs", json={"delay": 3600})
    assert posted.headers["Location"] == f"{PREFIX}/jobs/{posted.json()['jobId']}"
    problem = proxied.client.get("/jobs/x").json()
    assert problem["instance"] == f"{PREFIX}/jobs/x"
    for path in ("/ui/", "/rq/"):
        page = proxied.client.get(path)
        assert page.status_code == 200
        assert f'="{PREFIX}/' in page.text
        assert f'="{path}' not in page.text
    assert proxied.client.get(proxied.url.removesuffix(PREFIX) + PREFIX, follow_redirects=True).status_code == 200


def test_events_arrive_at_once_and_silent_responses_last(proxied: Proxied) -> None:
    job_id = proxied.client.post("/jobs", json={"delay": WAIT_SECONDS - 2}).json()["jobId"]
    with proxied.client.stream("GET", f"/jobs/{job_id}/events") as stream:
        lines = stream.iter_lines()
        first = next(line for line in lines if line.startswith("data: "))
        assert json.loads(first.removeprefix("data: "))["status"] == "SCHEDULED"
        # The stream is open while the job waits: its first event was not buffered.
        assert proxied.client.get(f"/jobs/{job_id}").json()["status"] == "SCHEDULED"
        started_at = time.monotonic()
        reply = proxied.client.get(f"/jobs/{job_id}", headers={"Prefer": f"wait={WAIT_SECONDS + 20}"})
        assert reply.json()["status"] == "COMPLETED"
        assert time.monotonic() - started_at > 10, "the request did not wait"
        assert [json.loads(line[6:])["status"] for line in lines if line.startswith("data: ")][-1] == "COMPLETED"


def test_client_address_and_origin_are_the_real_ones(proxied: Proxied) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}
    posted = proxied.client.post("/jobs", json={"delay": 3600}, headers=forged)
    assert posted.headers["Location"].startswith(f"{PREFIX}/jobs/")
    for origin, status in ((proxied.url.removesuffix(PREFIX), 202), ("https://evil.example", 403)):
        own = {**basic(KEY), "Origin": origin}
        assert proxied.client.post("/jobs", json={"delay": 3600}, headers=own).status_code == status
    proxied.client.get("/jobs", headers={**forged, **bearer("wrong")})
    eventually(lambda: any("wrong key from 127.0.0.1," in api.api.output for api in proxied.apis))


def test_large_bodies_are_refused_and_ordinary_ones_pass(proxied: Proxied) -> None:
    text = "x" * 1_000_000
    assert proxied.client.post("/jobs", json={"delay": 3600, "payload": {"result": text}}).status_code == 202
    assert proxied.client.post("/jobs", json={"payload": {"result": text * 2}}).status_code == 413


def test_console_works_in_a_browser_under_the_prefix(proxied: Proxied) -> None:
    if not installed():
        pytest.skip("no Chromium is installed")
    faults: list[str] = []
    with launched() as browser:
        context = browser.new_context(http_credentials={"username": "x", "password": KEY}, ignore_https_errors=True)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("response", lambda reply: faults.append(reply.url) if reply.status not in OK else None)
        page.goto(f"{proxied.url}/ui/")
        page.get_by_role("link", name="Queues").first.click()
        page.get_by_role("link", name="default").first.wait_for()
        assert page.url.startswith(f"{proxied.url}/ui/")
    assert faults == []


def test_host_that_was_killed_costs_no_request_but_one_under_way(proxied: Proxied) -> None:
    """Last: the second API process is killed."""
    proxied.apis[1].api.kill()
    accepted, failures = 0, []
    for number in range(20):
        for _ in range(2):  # a kept connection may end just as the proxy sends a request: it must not repeat a POST
            key = {"Idempotency-Key": f"killed-{number}"}
            try:
                reply = proxied.client.post("/jobs", json={"delay": 3600}, headers=key)
            except httpx.RemoteProtocolError as error:  # so HAProxy shows it
                failures.append(str(error))
                continue
            if reply.status_code == 202:
                accepted += 1
                break
            failures.append(reply.text)
    assert accepted == 20
    assert len(failures) <= 1, failures
