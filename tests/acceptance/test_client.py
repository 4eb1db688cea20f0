"""The Python client against a running service: its methods, and what it does when requests fail."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from jobsvc.client import ENDED, ApiError, Client, Job, NewJob, NoResponse, WebhookError, verify_webhook
from tests.acceptance.test_webhooks import NEW, OLD, Receiver
from tests.support.http import LocalHandler, LocalServer
from tests.support.launcher import ROOT
from tests.support.service import Service, eventually, free_port, page_server, serving

KEY = "client-key-of-this-test"


class Proxy(LocalServer):
    """Passes requests on. Each fault is for one request: `cut` passes it on and closes the connection without
    the response, a number is the status of a response with Retry-After that this proxy sends itself."""

    def __init__(self, service: Service) -> None:
        super().__init__(Passing)
        self.service = service
        self.faults: list[str | int] = []
        self.keys: list[str | None] = []


class Passing(LocalHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.keys.append(self.headers["Idempotency-Key"])
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            return self.answer(fault, b"the page of a proxy", {"Retry-After": "1"})
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        with httpx.Client(timeout=30) as client:
            reply = client.request(self.command, self.server.service.url + self.path, headers=kept, content=body)
        if fault == "cut":
            self.close_connection = True
            return None
        return self.answer(reply.status_code, reply.content, {"Content-Type": reply.headers.get("Content-Type", "")})

    do_GET = do_POST = do_DELETE = do_PATCH = pass_on

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    """A service with a worker, an API key and secrets for webhooks."""
    env = {"JOBSVC_API_KEYS": f"app:admin:{KEY},reader:read:read-only-key", "JOBSVC_WEBHOOK_SECRETS": f"{OLD},{NEW}"}
    service = Service({**apart, **env}, key=KEY)
    service.worker()
    yield service
    service.close()


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, KEY) as client:
        yield client


@pytest.fixture
def proxy(service: Service) -> Iterator[Proxy]:
    proxy = Proxy(service)
    with serving(proxy):
        yield proxy


@pytest.fixture
def through(proxy: Proxy) -> Iterator[Client]:
    """A client that reaches the service through the proxy."""
    with Client(proxy.url, KEY, timeout=20) as client:
        yield client


def tagged(client: Client, tag: str) -> list[Job]:
    return list(client.jobs(tag=tag))


@contextlib.contextmanager
def restarted(service: Service) -> Iterator[None]:
    """The API is killed; it starts again after the block."""
    service.api.kill()
    yield
    service.api = service.run(sys.executable, "-m", "jobsvc.serve")
    eventually(service.answers, 30)


def test_posted_job_is_waited_for(client: Client, service: Service) -> None:
    job_id = client.post(type="TEST_JOB", payload={"result": {"ü": 1}}, tags=["a"])
    job = client.wait(job_id, timeout=30)
    assert (job["status"], job["result"], job["tags"]) == ("COMPLETED", {"ü": 1}, ["a"])
    assert client.get(job_id) == job == service.job(job_id)


def test_types_have_the_fields_of_the_api(service: Service) -> None:
    document = httpx.get(f"{service.url}/openapi.json", headers={"X-API-Key": KEY}).json()
    fields = [set(schema.get("properties", ())) for schema in document["components"]["schemas"].values()]
    assert set(Job.__annotations__) in fields
    assert set(NewJob.__annotations__) in fields


def test_batch_with_refs_is_a_workflow(client: Client) -> None:
    first, second = client.batch([{"ref": "first"}, {"dependsOn": ["first"], "payload": {"result": 2}}])
    assert client.wait(second, timeout=30)["result"] == 2
    assert client.get(second)["dependsOn"] == [first]


def test_waiting_job_is_changed_cancelled_retried_and_deleted(client: Client) -> None:
    job_id = client.post(delay=600, payload={"result": 1})
    assert client.patch(job_id, payload={"result": 2}, queue="high")["payload"] == {"result": 2}
    assert client.cancel(job_id)["status"] == "CANCELLED"
    assert client.retry(job_id)["status"] == "PENDING"
    assert client.wait(job_id, timeout=30)["result"] == 2
    client.delete(job_id)
    with pytest.raises(ApiError, match="404") as refused:
        client.get(job_id)
    assert refused.value.status == 404


def test_list_goes_through_all_pages(client: Client) -> None:
    ids = client.batch([{"tags": ["pages"], "delay": 600, "payload": {"result": [number]}} for number in range(5)])
    assert [job["id"] for job in client.jobs(tag="pages", limit=2)] == ids[::-1]
    assert [job["id"] for job in client.jobs(tag=["pages"], status=["SCHEDULED"], payload={"result": [3]})] == [ids[3]]
    assert list(client.jobs(tag="pages", status="FAILED")) == []


def test_wait_ends_at_its_timeout(client: Client) -> None:
    job_id = client.post(delay=600)
    started_at = time.monotonic()
    with pytest.raises(TimeoutError, match="SCHEDULED"):
        client.wait(job_id, timeout=1.5)
    assert time.monotonic() - started_at >= 1.5
    with pytest.raises(TimeoutError):
        client.wait(job_id, timeout=0)


def test_errors_carry_the_problem(client: Client, service: Service) -> None:
    with pytest.raises(ApiError) as invalid:
        client.post(queue="hihg", timeout=-1)
    assert (invalid.value.status, {error["pointer"] for error in invalid.value.errors}) == (422, {"/queue", "/timeout"})
    assert "hihg" in str(invalid.value)
    done = client.post()
    client.wait(done, timeout=30)
    with pytest.raises(ApiError) as conflict:
        client.cancel(done)
    assert (conflict.value.status, conflict.value.tries) == (409, 1)
    holder = client.post(uniqueKey="once", delay=600)
    with pytest.raises(ApiError) as taken:
        client.post(uniqueKey="once", onConflict="reject")
    assert (taken.value.status, taken.value.job_id, taken.value.tries) == (409, holder, 1)
    for key, status in (("wrong", 401), (None, 401), ("read-only-key", 403)):
        with Client(service.url, key) as other, pytest.raises(ApiError) as denied:
            other.post()
        assert denied.value.status == status
    with pytest.raises(ApiError) as large:
        client.post(payload={"result": "x" * 3_000_000})
    assert large.value.status == 413


@pytest.mark.parametrize("url", ["localhost:3000", "ftp://localhost", "http://u:p@localhost", "http://localhost/?a=1"])
def test_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url must"):
        Client(url)


def test_path_prefix_is_kept(service: Service) -> None:
    with Client(f"{service.url}/jobs/", KEY) as client, pytest.raises(ApiError) as wrong:
        client.post()
    assert wrong.value.status in (404, 405)


@pytest.mark.parametrize("faults", [["cut"], ["cut", "cut"], [503], [429, "cut", 502]])
def test_repeated_post_makes_one_job(proxy: Proxy, through: Client, client: Client, faults: list[str | int]) -> None:
    tag = f"once-{faults}"
    proxy.faults = list(faults)
    job_id = through.post(tags=[tag])
    assert [job["id"] for job in tagged(client, tag)] == [job_id]
    assert len(proxy.keys) == len(faults) + 1
    assert len(set(proxy.keys)) == 1
    through.post(tags=[tag])
    assert len(tagged(client, tag)) == 2
    assert len(set(proxy.keys)) == 2


def test_repeated_batch_makes_its_jobs_once(proxy: Proxy, through: Client, client: Client) -> None:
    proxy.faults = ["cut"]
    ids = through.batch([{"tags": ["batch-once"]}, {"tags": ["batch-once"]}])
    assert [job["id"] for job in tagged(client, "batch-once")] == ids[::-1]


def test_own_idempotency_key_repeats_a_call(client: Client) -> None:
    assert client.post(idempotency_key="order-1") == client.post(idempotency_key="order-1")
    with pytest.raises(ApiError) as reused:
        client.post(idempotency_key="order-1", delay=1)
    assert reused.value.status == 422


def test_post_waits_for_an_earlier_try_in_progress(client: Client, service: Service) -> None:
    """The first try is stopped by a lock in Postgres, so that the second one finds its key in use."""
    service.sql(
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'"
    )
    service.sql("CREATE TRIGGER doze BEFORE INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION doze()")
    try:
        with ThreadPoolExecutor(2) as pool:
            ids = list(pool.map(lambda _: client.post(idempotency_key="busy"), range(2)))
    finally:
        service.sql("DROP FUNCTION doze CASCADE")
    assert ids[0] == ids[1]


def test_actions_whose_response_was_lost_succeed(proxy: Proxy, through: Client, client: Client) -> None:
    job_id = client.post(delay=600)
    proxy.faults = ["cut"]
    assert through.cancel(job_id)["status"] == "CANCELLED"
    proxy.faults = ["cut"]
    assert through.retry(job_id)["status"] != "CANCELLED"
    client.wait(job_id, timeout=30)
    proxy.faults = ["cut"]
    through.delete(job_id)
    with pytest.raises(ApiError):
        client.get(job_id)
    with pytest.raises(ApiError):
        through.delete(job_id)


def test_call_ends_at_its_deadline(proxy: Proxy) -> None:
    with Client(f"http://127.0.0.1:{free_port()}", timeout=1) as client:
        started_at = time.monotonic()
        with pytest.raises(NoResponse, match="tries"):
            client.post()
        assert time.monotonic() - started_at < 20
        with pytest.raises(NoResponse):
            client.wait("01a20d9d-383b-755a-b743-f0ceb23ca29d", timeout=0.5)
    proxy.faults = [503] * 100
    with Client(proxy.url, KEY, timeout=3) as client, pytest.raises(ApiError) as refused:
        client.post()
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    assert 1 < len(proxy.keys) < 5


def test_response_that_never_comes_ends_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=1)
        with pytest.raises(NoResponse):
            client.post()


def test_page_of_another_server_is_an_error() -> None:
    with page_server("<html>hello</html>") as url, Client(url) as client, pytest.raises(ApiError, match="not JSON"):
        client.post()


def test_events_end_with_the_job(client: Client) -> None:
    job_id = client.post(payload={"durationMs": 600, "steps": 3})
    seen = list(client.events(job_id, logs=True))
    states = [event["data"] for event in seen if event["event"] != "log"]
    assert states[-1]["status"] == "COMPLETED"
    assert {state["id"] for state in states} == {job_id}
    assert any(state["progress"] and state["progress"]["percent"] < 100 for state in states)
    [last] = client.events(job_id)
    assert last["data"] == states[-1]
    with pytest.raises(ApiError):
        next(client.events("01a20d9d-383b-755a-b743-f0ceb23ca29d"))


def test_events_and_wait_survive_a_restart(client: Client, service: Service) -> None:
    job_id = client.post(delay=600)
    seen: list[Any] = []

    def follow() -> None:
        seen.extend(client.events(job_id))

    follower = threading.Thread(target=follow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait, job_id, 100)
        events = client.events(job_id)
        assert next(events)["event"] == "status"
        follower.start()
        with restarted(service):
            assert not waiting.done()
        with Client(service.url, KEY) as other:
            assert other.cancel(job_id)["status"] == "CANCELLED"
        assert [event["data"]["status"] for event in events if event["event"] != "log"] == ["CANCELLED"]
        assert waiting.result(60)["status"] == "CANCELLED"
    follower.join(60)
    assert seen[-1]["data"]["status"] == "CANCELLED"


def test_threads_share_a_client(client: Client) -> None:
    def work(number: int) -> Any:
        return client.wait(client.post(payload={"result": number}), timeout=60)["result"]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(work, range(60))) == list(range(60))


def test_forked_process_uses_connections_of_its_own(client: Client) -> None:
    before = client.post(delay=600)
    if not (pid := os.fork()):
        ids = [client.get(before)["id"] for _ in range(20)]
        os._exit(0 if ids == [before] * 20 else 1)
    assert [client.get(before)["id"] for _ in range(20)] == [before] * 20
    assert os.waitpid(pid, 0)[1] == 0


def test_webhook_is_verified(client: Client) -> None:
    receiver = Receiver()
    with serving(receiver):
        job_id = client.post(webhookUrl=receiver.url)
        [seen] = receiver.reported()
    headers = {name.title(): value for name, value in seen.headers.items()}
    for secrets in (OLD, NEW, f"{OLD},{NEW}", [NEW, "whsec_" + "A" * 32], NEW.removeprefix("whsec_")):
        message = Client.verify_webhook(secrets, headers, seen.body)
        assert (message["type"], message["data"]["id"]) == ("job.completed", job_id)
    sent_at = int(seen.headers["webhook-timestamp"])
    one_signature = {**headers, "Webhook-Signature": headers["Webhook-Signature"].split()[0]}
    assert verify_webhook(f"{OLD},{NEW}", one_signature, seen.body)
    tampered = [
        (NEW, headers, seen.body.replace(b"completed", b"cancelled")),
        ("whsec_" + "A" * 32, headers, seen.body),
        (NEW, {**headers, "Webhook-Id": "other"}, seen.body),
        (NEW, {**headers, "Webhook-Timestamp": str(sent_at + 1)}, seen.body),
        (NEW, {**headers, "Webhook-Signature": "v1, v2,x ü"}, seen.body),
        *((NEW, {**headers, "Webhook-Timestamp": odd}, seen.body) for odd in ("", "x", "9" * 5000)),
        ([], headers, seen.body),
        (NEW, {}, seen.body),
    ]
    for secrets, changed, body in tampered:
        with pytest.raises(WebhookError):
            verify_webhook(secrets, changed, body)
    with pytest.raises(WebhookError, match="too old"):
        verify_webhook(NEW, headers, seen.body, tolerance_seconds=-1)
    with pytest.raises(ValueError, match="empty"):
        verify_webhook(f"{NEW},", headers, seen.body)


@pytest.mark.parametrize("offset", [-301, 301])
def test_webhook_outside_the_tolerance_is_refused(offset: int) -> None:
    at = int(time.time()) + offset + (5 if offset > 0 else 0)
    signature = Webhook(NEW).sign("1", datetime.fromtimestamp(at, UTC), "{}")
    headers = {"webhook-id": "1", "webhook-timestamp": str(at), "webhook-signature": signature}
    with pytest.raises(WebhookError, match="too old"):
        verify_webhook(NEW, headers, b"{}")
    assert verify_webhook(NEW, headers, b"{}", tolerance_seconds=400) == {}


def test_client_imports_nothing_of_the_service(tmp_path: Path) -> None:
    command = "import jobsvc.client, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(loaded.stdout.split())
    assert {name for name in modules if name.startswith("jobsvc")} == {"jobsvc", "jobsvc.client"}
    assert not modules & {"flask", "rq", "redis", "sqlalchemy", "pydantic", "psycopg2"}
    assert set(ENDED) < {"COMPLETED", "FAILED", "CANCELLED", "PENDING"}


def test_one_copied_file_is_enough(service: Service, tmp_path: Path) -> None:
    (tmp_path / "queue_client.py").write_text((ROOT / "jobsvc/client.py").read_text())
    command = (
        "import sys; from queue_client import Client; c = Client(*sys.argv[1:]); print(c.wait(c.post())['status'])"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", command, service.url, KEY],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "COMPLETED\n"


def test_users_code_is_typed(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "from jobsvc.client import Client, Job, verify_webhook\n"
        "client = Client('http://localhost:3000')\n"
        "reveal_type(client.post(type='A', delay=1))\n"
        "job: Job = client.wait('1', timeout=5)\n"
        "reveal_type(job['status'])\n"
        "for event in client.events('1', logs=True):\n"
        "    if event['event'] == 'log':\n"
        "        reveal_type(event['data']['message'])\n"
        "    else:\n"
        "        reveal_type(event['data']['attempts'])\n"
        "client.post(uniqeKey='a')\n"
        "client.batch([{'delay': '1'}])\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "user.py"]
    env = {**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")}
    found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True).stdout
    errors = [line for line in found.splitlines() if "user.py" in line and ": error:" in line]
    assert [line.split(":")[1] for line in errors] == ["11", "12"], found
    notes = [line.partition('is "')[2] for line in found.splitlines() if "Revealed" in line]
    posted, status, message, attempts = (note.rstrip('"') for note in notes)
    assert (posted, message, attempts) == ("str", "str", "int")
    assert "Literal['PENDING']" in status
