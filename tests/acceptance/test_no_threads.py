"""The API under servers that answer one request after the other, such as `flask run --without-threads`.

What needs threads: event streams, which would hold up all other requests, and waits. The lack is for good, so no
client is asked to come again: neither by Retry-After nor, for an EventSource, by an empty stream.
"""

import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.service import Process, eventually, free_port


@pytest.fixture(scope="module")
def client(apart: dict[str, str]) -> Iterator[httpx.Client]:
    port = free_port(None)
    command = (sys.executable, "-m", "flask", "--app", "wsgi", "run", "--without-threads", "-p", str(port))
    process = Process(*command, env=apart)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def answers() -> bool:
        assert process.popen.poll() is None, process.output
        try:
            return client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    eventually(answers, 40)
    yield client
    client.close()
    process.kill()


def post(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/jobs", json={"delay": 600}, headers=headers)


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
@pytest.mark.parametrize("query", ["", "?logs=true"])
def test_stream_is_refused_with_the_reason(client: httpx.Client, accept: str, query: str) -> None:
    job_id = post(client).json()["jobId"]
    reply = client.get(f"/jobs/{job_id}/events{query}", headers={"Accept": accept})
    assert reply.status_code == 501
    assert "Retry-After" not in reply.headers
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert "threads" in reply.json()["title"]
    assert f"poll /jobs/{job_id}" in reply.json()["detail"]


def test_stream_of_a_finished_job_is_sent(client: httpx.Client) -> None:
    job_id = post(client).json()["jobId"]
    assert client.post(f"/jobs/{job_id}/cancel").status_code == 200
    reply = client.get(f"/jobs/{job_id}/events")
    assert reply.status_code == 200
    assert '"CANCELLED"' in reply.text


def test_wait_is_declined_at_once(client: httpx.Client) -> None:
    posted = post(client, Prefer="wait=30")
    assert posted.status_code == 202
    shown_job = client.get(f"/jobs/{posted.json()['jobId']}", headers={"Prefer": "wait=30"})
    assert shown_job.status_code == 200
    assert shown_job.json()["status"] == "SCHEDULED"
    for reply in (posted, shown_job):
        assert "Preference-Applied" not in reply.headers
        assert reply.elapsed.total_seconds() < 20
