"""Webhooks, as their receiver sees them, who checks them with the library that Standard Webhooks gives him."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from standardwebhooks.webhooks import Webhook

from tests.acceptance.test_bad_input import post
from tests.support.http import LocalHandler, LocalServer, refused
from tests.support.service import Service, eventually, serving

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1Zq2YfQ="


class Seen(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str = NEW) -> dict[str, Any]:
        return dict(Webhook(secret).verify(self.body, self.headers))


class Receiver(LocalServer):
    """Keeps what it was sent, and gives the answers (status, headers) that a test has put in, then 204."""

    def __init__(self) -> None:
        super().__init__(Answers)
        self.seen: list[Seen] = []
        self.answers: list[tuple[int, dict[str, str]]] = []

    def reported(self, count: int = 1) -> list[Seen]:
        """Return the received requests once there are `count`."""
        eventually(lambda: len(self.seen) >= count)
        assert len(self.seen) == count
        return self.seen


class Answers(LocalHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        self.server.seen.append(Seen(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_POST


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    with serving(server):
        yield server


@pytest.fixture(scope="module")
def hooks(apart: dict[str, str]) -> Iterator[Service]:
    """A service with two secrets, and a worker."""
    service = Service({"JOBSVC_WEBHOOK_SECRETS": f"{OLD},{NEW}", "JOBSVC_SWEEP_SECONDS": "0.2", **apart})
    service.worker()
    yield service
    service.close()


def delivery_of(service: Service, job_id: str) -> str:
    return str(service.job(job_id)["webhookJobId"])


def make_due(service: Service, delivery: str) -> None:
    """Let the time pass until the delivery's next attempt is due."""
    service.sql("UPDATE jobs SET due_at = now(), dispatched_at = NULL WHERE id = %s AND status = 'RETRYING'", delivery)


def test_finished_job_sends_a_webhook(hooks: Service, receiver: Receiver) -> None:
    payload = {"result": {"ü": [1, 2.5, None]}}
    job_id = hooks.post(payload=payload, webhookUrl=f"{receiver.url}/hook?a=1", tags=["x"])
    [seen] = receiver.reported()
    message = seen.verified()
    assert seen.path == "/hook?a=1"
    assert seen.headers["content-type"] == "application/json"
    assert list(message) == ["type", "timestamp", "data"]
    assert message["type"] == "job.completed"
    job = hooks.job(job_id)
    assert message["data"] == job
    assert message["timestamp"] == job["finishedAt"]
    assert seen.headers["webhook-id"] == job["webhookJobId"]
    delivery = hooks.until(job["webhookJobId"], "COMPLETED")
    assert (delivery["type"], delivery["queue"], delivery["webhookJobId"]) == ("WEBHOOK", "default", None)
    assert delivery["result"] == {"status": 204}
    assert delivery["maxAttempts"] == 10
    assert delivery["retryIntervals"] == [5, 30, 120, 600, 3600, 10800, 10800, 10800, 10800]


def test_failed_and_cancelled_jobs_send_a_webhook(hooks: Service, receiver: Receiver) -> None:
    failed = hooks.post("DISCARD", webhookUrl=receiver.url)
    [first] = receiver.reported()
    assert (first.verified()["type"], first.verified()["data"]["error"]["type"]) == ("job.failed", "Discard")
    cancelled = hooks.post(delay=60, webhookUrl=receiver.url)
    assert hooks.client.post(f"/jobs/{cancelled}/cancel").json()["webhookJobId"]
    message = receiver.reported(2)[1].verified()
    assert (message["type"], message["data"]["id"]) == ("job.cancelled", cancelled)
    assert hooks.client.post(f"/jobs/{failed}/retry").status_code == 200
    again = receiver.reported(3)[2].verified()  # each outcome sends a webhook
    assert (again["data"]["id"], again["data"]["attempts"]) == (failed, 2)


def test_each_secret_adds_a_signature(hooks: Service, receiver: Receiver) -> None:
    hooks.post(webhookUrl=receiver.url)
    [seen] = receiver.reported()
    assert len(seen.headers["webhook-signature"].split()) == 2
    assert seen.verified(OLD) == seen.verified(NEW)
    with pytest.raises(Exception, match="No matching signature"):
        seen.verified("whsec_" + "A" * 32)


def test_failed_delivery_is_repeated_unchanged(hooks: Service, receiver: Receiver) -> None:
    receiver.answers = [(500, {}), (404, {})]
    job_id = hooks.post(webhookUrl=receiver.url)
    receiver.reported()
    delivery = delivery_of(hooks, job_id)
    for count in (2, 3):
        hooks.until(delivery, "RETRYING")
        make_due(hooks, delivery)
        receiver.reported(count)
    hooks.until(delivery, "COMPLETED")
    assert {seen.headers["webhook-id"] for seen in receiver.seen} == {delivery}
    assert len({seen.body for seen in receiver.seen}) == 1
    assert all(seen.verified() for seen in receiver.seen)
    assert [one["outcome"] for one in hooks.attempts(delivery)] == ["failed", "failed", "completed"]


def test_redirect_fails_the_delivery(hooks: Service, receiver: Receiver) -> None:
    receiver.answers = [(307, {"Location": f"{receiver.url}/elsewhere"})]
    job_id = hooks.post(webhookUrl=receiver.url)
    receiver.reported()
    job = hooks.until(delivery_of(hooks, job_id), "RETRYING")
    assert job["error"]["message"] == "the answer was 307"
    receiver.reported(1)


def test_response_410_ends_the_delivery(hooks: Service, receiver: Receiver) -> None:
    receiver.answers = [(410, {})]
    job_id = hooks.post(webhookUrl=receiver.url)
    receiver.reported()
    delivery = hooks.until(delivery_of(hooks, job_id), "FAILED")
    assert delivery["attempts"] == 1
    assert [one["outcome"] for one in hooks.attempts(delivery["id"])] == ["discarded"]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(hooks: Service, receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {"Retry-After": "0"})]
    job_id = hooks.post(webhookUrl=receiver.url)
    receiver.reported(2)  # not after 5 s
    first, second = hooks.attempts(hooks.until(delivery_of(hooks, job_id), "COMPLETED")["id"])
    assert first["error"]["message"] == f"the answer was {status}, to be tried again in 0 s"
    assert second["outcome"] == "completed"


def test_name_of_a_private_address_is_not_connected_to(receiver: Receiver) -> None:
    # A queue of its own, which the other service's worker, that may reach 127.0.0.1, doesn't serve.
    env = {"JOBSVC_WEBHOOK_SECRETS": NEW, "JOBSVC_HTTP_ALLOW": "", "JOBSVC_HANDLERS": "", "JOBSVC_QUEUES": "apart"}
    service = Service(env)
    try:
        job_id = service.post(delay=60, webhookUrl=f"http://localhost:{receiver.server_port}/")
        service.client.post(f"/jobs/{job_id}/cancel")
        service.worker()
        delivery = service.until(delivery_of(service, job_id), "FAILED", "RETRYING")
        assert (delivery["status"], delivery["attempts"], delivery["error"]["type"]) == ("FAILED", 1, "Refused")
        assert receiver.seen == []
    finally:
        service.close()


def test_webhook_can_be_sent_again(hooks: Service, receiver: Receiver) -> None:
    job_id = hooks.post(webhookUrl=receiver.url)
    [first] = receiver.reported()
    etag = hooks.client.get(f"/jobs/{job_id}").headers["ETag"]
    reply = hooks.client.post(f"/jobs/{job_id}/webhook")
    assert reply.status_code == 202
    assert hooks.client.get(f"/jobs/{job_id}").headers["ETag"] != etag  # webhookJobId is another
    assert list(reply.json()) == ["jobId"]
    assert reply.headers["Location"] == f"/jobs/{reply.json()['jobId']}"
    second = receiver.reported(2)[1]
    assert second.headers["webhook-id"] == reply.json()["jobId"] == delivery_of(hooks, job_id)
    assert second.headers["webhook-id"] != first.headers["webhook-id"]
    assert second.verified()["timestamp"] == first.verified()["timestamp"]
    assert second.verified()["data"] == hooks.job(job_id)


def test_resend_is_refused_for_jobs_without_a_webhook_or_outcome(hooks: Service, receiver: Receiver) -> None:
    silent = hooks.post(delay=60)
    waiting = hooks.post(delay=60, webhookUrl=receiver.url)
    assert "no webhookUrl" in refused(hooks.client.post(f"/jobs/{silent}/webhook"), 409)["detail"]
    assert "SCHEDULED" in refused(hooks.client.post(f"/jobs/{waiting}/webhook"), 409)["detail"]
    refused(hooks.client.post(f"/jobs/{uuid4()}/webhook"), 404)
    refused(hooks.client.post("/jobs/x/webhook"), 404)
    refused(hooks.client.post(f"/jobs/{waiting}/webhook?again=1"), 422)
    refused(hooks.client.post(f"/jobs/{waiting}/webhook", json={"url": receiver.url}), 422)
    assert hooks.job(waiting)["webhookJobId"] is None


def test_deliveries_are_shown_as_jobs(hooks: Service, receiver: Receiver) -> None:
    job_id = hooks.post(webhookUrl=receiver.url)
    receiver.reported()
    delivery = delivery_of(hooks, job_id)
    listed = [job["id"] for job in hooks.client.get("/jobs?limit=200").json()["jobs"]]
    assert job_id in listed
    assert delivery not in listed
    deliveries = hooks.client.get("/jobs?type=WEBHOOK&limit=1").json()["jobs"]
    assert [job["id"] for job in deliveries] == [delivery]
    assert "WEBHOOK" not in [one["name"] for one in hooks.client.get("/job-types").json()["jobTypes"]]


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/", "http://169.254.169.254./", "http://[::ffff:169.254.169.254]/"),
        *("http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://169.254.43518/"),
        *("http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::a9fe:a9fe]/", "http://①⑥⑨.254.169.254/"),
        *("http://169%2E254%2E169%2E254/", "http://7147006462/", "http://[::169.254.169.254]/"),
        *("http://127.0.0.2/", "http://10.0.0.1/", "http://[::1]/", "http://[fe80::1%25lo]/", "http://0/"),
        *("ftp://example.com/", "example.com", "", "http://", "http://a b/", "http://u:p@example.com/"),
        *("http://example.com:70000/", "http://example.com/" + "x" * 8192, 1, ["http://example.com/"], {}),
    ],
)
@pytest.mark.parametrize("pointer", ["/webhookUrl", "/payload/url"])
def test_invalid_urls_are_refused(hooks: Service, pointer: str, url: Any) -> None:
    of_a_request = {"type": "HTTP_REQUEST", "payload": {"url": url}}
    body = {**({"webhookUrl": url} if pointer == "/webhookUrl" else of_a_request), "tags": ["refused"]}
    problem = refused(hooks.client.post("/jobs", json=body), 422)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert hooks.client.get("/jobs?tag=refused").json()["jobs"] == []


def test_bad_url_in_a_batch_is_named(hooks: Service) -> None:
    reply = hooks.client.post("/jobs/batch", json={"jobs": [{}, {"webhookUrl": "http://10.0.0.1/"}]})
    assert [error["pointer"] for error in refused(reply, 422)["errors"]] == ["/jobs/1/webhookUrl"]


def test_without_secrets_no_webhook_is_accepted(api: Service) -> None:
    problem = refused(post(api, '{"webhookUrl": "https://example.com/"}'), 422)
    assert problem["errors"][0]["pointer"] == "/webhookUrl"
    assert "JOBSVC_WEBHOOK_SECRETS" in problem["detail"]


def test_webhook_job_cannot_be_posted(api: Service) -> None:
    payload = {"url": "https://example.com/", "body": {"type": "job.completed", "timestamp": "", "data": {}}}
    problem = refused(post(api, json.dumps({"type": "WEBHOOK", "payload": payload})), 422)
    assert problem["errors"][0]["pointer"] == "/type"
    assert "WEBHOOK" not in problem["detail"].partition("known types")[2]
