"""`Prefer: wait=N`: a waiting client receives the finished job, and blocks no other request."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import make_url

from tests.integration.factories import sql
from tests.support.http import refused
from tests.support.service import Process, Service, eventually, free_port
from tests.support.sse import follow

PATIENT = {"Prefer": "wait=50"}
CANCEL = "UPDATE jobs SET status = 'CANCELLED', finished_at = now(), version = version + 1 WHERE id = ANY(:ids)"


def cancel(*job_ids: str) -> None:
    sql(CANCEL.replace(":ids", "CAST(:ids AS uuid[])"), ids=list(job_ids))


def applied(reply: httpx.Response) -> str | None:
    assert "Prefer" in reply.headers["Vary"]
    return reply.headers.get("Preference-Applied")


def connections(service: Service) -> int:
    """Return the number of connections of this API's processes to Postgres."""
    port = make_url(os.environ["DATABASE_URL"]).port or 5432
    api = psutil.Process(service.api.popen.pid)
    connections_of_all = [
        one for process in (api, *api.children(recursive=True)) for one in process.net_connections("tcp")
    ]
    return sum(one.raddr[1:] == (port,) and one.status == psutil.CONN_ESTABLISHED for one in connections_of_all)


def test_waiting_post_returns_the_finished_job(stack: Service) -> None:
    reply = stack.client.post("/jobs", json={"payload": {"durationMs": 300, "result": 7}}, headers=PATIENT)
    assert (reply.status_code, applied(reply)) == (200, "wait=50")
    job = reply.json()
    assert (job["status"], job["result"]) == ("COMPLETED", 7)
    assert job == stack.job(job["id"])
    assert reply.headers["Location"] == f"/jobs/{job['id']}"


def test_waiting_post_returns_a_failed_job(stack: Service) -> None:
    body = {"payload": {"failAttempts": 9}, "retry": {"max": 1, "interval": 0.2}}
    reply = stack.client.post("/jobs", json=body, headers=PATIENT)
    assert (reply.status_code, applied(reply)) == (200, "wait=50")
    assert (reply.json()["status"], reply.json()["attempts"]) == ("FAILED", 2)


def test_waiting_get_returns_the_finished_job(stack: Service) -> None:
    job_id = stack.post(payload={"durationMs": 500, "steps": 3})
    reply = stack.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=9999"})
    assert (reply.status_code, applied(reply), reply.json()["status"]) == (200, "wait=60", "COMPLETED")
    again = stack.client.get(f"/jobs/{job_id}", headers=PATIENT)
    assert (again.json(), applied(again)) == (reply.json(), "wait=50")


@pytest.mark.parametrize("seconds", [0, 1])
def test_wait_ends_without_a_result_after_its_time(api: Service, seconds: int) -> None:
    headers = [("Prefer", "respond-async"), ("Prefer", f'wait="{seconds}"; x=y')]
    reply = api.client.post("/jobs", json={"delay": 600}, headers=headers)
    assert (reply.status_code, applied(reply), list(reply.json())) == (202, f"wait={seconds}", ["jobId"])
    shown = api.client.get(f"/jobs/{reply.json()['jobId']}", headers=headers)
    assert (shown.status_code, applied(shown), shown.json()["status"]) == (200, f"wait={seconds}", "SCHEDULED")


@pytest.mark.parametrize("prefer", [None, "return=minimal", "wait=x, wait=9", "wait=-9", 'wait="9', "ü"])
def test_request_without_prefer_does_not_wait(api: Service, prefer: str | None) -> None:
    headers = {"Prefer": prefer.encode()} if prefer else {}
    reply = api.client.post("/jobs", headers=headers)
    assert (reply.status_code, applied(reply)) == (202, None)
    assert applied(api.client.get(f"/jobs/{reply.json()['jobId']}", headers=headers)) is None


def test_taken_unique_key_waits_for_the_existing_job(stack: Service) -> None:
    holder = stack.post(payload={"durationMs": 3000}, uniqueKey="waited-for")
    in_vain = stack.client.post("/jobs", json={"uniqueKey": "waited-for"}, headers={"Prefer": "wait=1"})
    assert (in_vain.status_code, applied(in_vain), in_vain.json()) == (202, "wait=1", {"jobId": holder})
    reply = stack.client.post("/jobs", json={"uniqueKey": "waited-for"}, headers=PATIENT)
    assert (reply.status_code, applied(reply), reply.json()["id"]) == (200, "wait=50", holder)


def test_waiting_request_with_an_error_is_refused(api: Service) -> None:
    refused(api.client.get("/jobs/01a20d9d-383b-755a-b743-f0ceb23ca29d", headers=PATIENT), 404)
    refused(api.client.get("/jobs/nope", headers=PATIENT), 404)
    refused(api.client.post("/jobs", json={"delay": "x"}, headers=PATIENT), 422)


@pytest.fixture
def small(clean: None) -> Iterator[Service]:
    """A service where two clients may wait."""
    service = Service(tune="serve.WAITERS = 2; events.HEARTBEAT_SECONDS = 0.2")
    yield service
    service.close()


def test_job_deleted_during_a_wait_is_404(small: Service) -> None:
    job_id = small.post(delay=600)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(small.client.get, f"/jobs/{job_id}", headers=PATIENT)
        with follow(small, job_id) as (_, events):
            assert next(events)
            sql("DELETE FROM jobs")
            assert [event for event in events if event] == []
        refused(waiting.result(30), 404)


def test_service_declines_waits_beyond_its_limit(small: Service) -> None:
    job_id = small.post(delay=600)
    with follow(small, job_id) as (_, one), follow(small, job_id) as (_, other):
        assert next(one)
        assert next(other)
        posted = small.client.post("/jobs", headers=PATIENT)
        assert (posted.status_code, applied(posted)) == (202, None)
        shown = small.client.get(f"/jobs/{job_id}", headers=PATIENT)
        assert (shown.status_code, applied(shown), shown.json()["status"]) == (200, None, "SCHEDULED")
        problem = refused(small.client.get(f"/jobs/{job_id}/events"), 503)
        assert "wait" in problem["detail"]
        assert int(small.client.get(f"/jobs/{job_id}/events").headers["Retry-After"]) > 0
        cancel(posted.json()["jobId"])
        assert applied(small.client.get(f"/jobs/{posted.json()['jobId']}", headers=PATIENT)) == "wait=50"
    # Clients that vanish are noticed when the next heartbeat can't be sent.
    eventually(lambda: applied(small.client.get(f"/jobs/{job_id}", headers={"Prefer": "wait=1"})) == "wait=1")
    with follow(small, job_id) as (_, one), follow(small, job_id) as (_, other):
        assert next(one)
        assert next(other)


def test_waiting_clients_do_not_delay_others(service: Service) -> None:
    """More than the threads that work: half of them wait for the end, half follow the changes."""
    job_ids = [service.post(delay=600) for _ in range(10)]
    limits = httpx.Limits(max_connections=300)
    with httpx.Client(base_url=service.url, timeout=120, limits=limits) as client, ExitStack() as open_streams:
        streams = [
            open_streams.enter_context(client.stream("GET", f"/jobs/{job_ids[i % 10]}/events")) for i in range(120)
        ]
        lines = [stream.iter_lines() for stream in streams]
        assert {next(one) for one in lines} == {"event: status"}
        with ThreadPoolExecutor(130) as pool:
            waiting = [
                pool.submit(client.get, f"/jobs/{job_ids[i % 10]}", headers={"Prefer": "wait=60"}) for i in range(130)
            ]
            posted = [service.client.post("/jobs") for _ in range(50)]
            assert {reply.status_code for reply in posted} == {202}
            assert not any(one.done() for one in waiting)
            assert 0 < connections(service) <= 21  # the pool's and the job watcher's
            cancel(*job_ids)
            replies = [one.result(60) for one in waiting]
            assert {(reply.json()["status"], applied(reply)) for reply in replies} == {("CANCELLED", "wait=60")}
        assert all('"CANCELLED"' in "".join(one) for one in lines)
    assert 0 < connections(service) <= 21  # the pool's and the job watcher's


def test_requests_beyond_the_thread_count_are_accepted(service: Service) -> None:
    """As many as there are threads, before a slow Postgres: those who queue too long for a connection are refused."""
    sql("CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END'")
    sql("CREATE TRIGGER doze BEFORE INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION doze()")
    try:
        limits = httpx.Limits(max_connections=280)
        with httpx.Client(base_url=service.url, timeout=120, limits=limits) as client, ThreadPoolExecutor(280) as pool:
            replies = list(pool.map(lambda _: client.post("/jobs"), range(280)))
    finally:
        sql("DROP FUNCTION doze CASCADE")
    assert {reply.status_code for reply in replies} == {202}


def test_server_without_threads_never_waits(clean: None, tmp_path: Path) -> None:
    port = free_port(None)
    command = ("-m", "flask", "--app", "wsgi", "run", "--without-threads", "--port", str(port))
    server = Process(sys.executable, *command)
    try:
        url = f"http://127.0.0.1:{port}/jobs"

        def post() -> Any:
            try:
                return httpx.post(url, json={"delay": 600}, headers=PATIENT, timeout=30)
            except httpx.ConnectError:
                return None

        reply = eventually(post)
        assert (reply.status_code, applied(reply)) == (202, None)
        refused(httpx.get(f"{url}/{reply.json()['jobId']}/events"), 501)
    finally:
        server.kill()
