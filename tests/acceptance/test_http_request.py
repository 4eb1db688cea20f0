"""HTTP_REQUEST against a real server here, and the guard that keeps it from private addresses."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.test_lifecycle import seconds
from tests.support.http import LocalHandler, LocalServer
from tests.support.service import Service, serving


class Target(LocalServer):
    """A server whose answers a test chooses by path; it keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(Answers)
        self.seen: list[dict[str, Any]] = []


class Answers(LocalHandler):
    server: Target
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append(
            {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body.decode()}
        )
        kind, _, argument = self.path.partition("?")[0].lstrip("/").partition("/")
        headers: dict[str, str] = {}
        content = b""
        status = 200
        match kind:
            case "json":
                headers["Content-Type"] = "application/json"
                content = b'{"a": [1, "\\u00fc"]}'
            case "text":
                content = b"a\x00b\xff"
            case "big":
                headers["Content-Type"] = "application/json"
                content = b'"' + b"x" * 200_000 + b'"'
            case "status":
                status = int(argument.split("?")[0])
            case "busy":
                status = int(argument) if len(self.server.seen) == 1 else 200
                headers["Retry-After"] = "2"
            case "redirect":
                code, _, place = argument.partition("/")
                status, headers["Location"] = int(code), place if ":" in place else f"/{place}"
            case "loop":
                status, headers["Location"] = 302, f"/loop/{int(argument) - 1}" if int(argument) else "/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = answer


@pytest.fixture
def target() -> Iterator[Target]:
    server = Target()
    with serving(server):
        yield server


@pytest.fixture(scope="module")
def http() -> Iterator[Service]:
    """A service whose worker may reach 127.0.0.1, and nothing else that is private."""
    service = Service()
    service.worker()
    yield service
    service.close()


@pytest.fixture
def call(http: Service) -> Callable[..., dict[str, Any]]:
    def call(url: str, retry: Any = None, **payload: Any) -> dict[str, Any]:
        job_id = http.post("HTTP_REQUEST", {"url": url, **payload}, retry=retry or {"max": 0})
        return http.until(job_id, "COMPLETED", "FAILED")

    return call


Call = Callable[..., dict[str, Any]]


def test_request_is_sent_as_given_and_its_response_stored(call: Call, target: Target) -> None:
    job = call(f"{target.url}/json?q=1&ü=ö", body={"x": [1]}, headers={"X-Test": "yes", "jobsvc-fence": "99"})
    [seen] = target.seen
    assert (seen["method"], seen["path"]) == ("POST", "/json?q=1&%C3%BC=%C3%B6")
    assert json.loads(seen["body"]) == {"x": [1]}
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert headers["content-type"] == "application/json"
    assert headers["host"] == target.url.removeprefix("http://")
    assert (headers["x-test"], headers["jobsvc-job-id"]) == ("yes", job["id"])
    assert (headers["jobsvc-attempt"], headers["jobsvc-fence"]) == ("1", "1")
    assert job["status"] == "COMPLETED"
    assert set(job["result"]) == {"status", "headers", "body"}
    assert job["result"]["status"] == 200
    assert job["result"]["headers"]["content-type"] == "application/json"
    assert job["result"]["body"] == {"a": [1, "ü"]}


def test_nul_characters_are_removed_from_a_text_body(call: Call, target: Target) -> None:
    assert call(f"{target.url}/text")["result"]["body"] == "a\ufffdb\ufffd"


def test_large_body_is_cut(call: Call, target: Target) -> None:
    body = call(f"{target.url}/big")["result"]["body"]
    assert body == '"' + "x" * (64 * 1024 - 1)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_every_method_is_sent(call: Call, target: Target, method: str) -> None:
    assert call(f"{target.url}/json", method=method)["status"] == "COMPLETED"
    assert target.seen[0]["method"] == method


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(400, "discarded"), (404, "discarded"), (408, "failed"), (429, "failed"), (500, "failed"), (503, "failed")],
)
def test_unexpected_statuses_fail_or_are_retried(http: Service, target: Target, status: int, outcome: str) -> None:
    job_id = http.post("HTTP_REQUEST", {"url": f"{target.url}/status/{status}"}, retry={"max": 1, "interval": 0})
    job = http.until(job_id, "FAILED")
    assert str(status) in job["error"]["message"]
    assert [attempt["outcome"] for attempt in http.attempts(job_id)] == (
        ["discarded"] if outcome == "discarded" else ["failed", "failed"]
    )


def test_expected_status_is_success(call: Call, target: Target) -> None:
    assert call(f"{target.url}/status/404", expectStatus=[404, 410])["status"] == "COMPLETED"
    assert call(f"{target.url}/status/204", expectStatus=[404])["status"] == "COMPLETED"
    assert call(f"{target.url}/redirect/302/json", expectStatus=[302])["result"]["status"] == 302


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(http: Service, target: Target, status: int) -> None:
    job_id = http.post("HTTP_REQUEST", {"url": f"{target.url}/busy/{status}"}, retry={"max": 1, "interval": 0})
    http.until(job_id, "RETRYING")
    job = http.until(job_id, "COMPLETED")
    assert job["attempts"] == 2
    first, second = http.attempts(job_id)
    assert seconds(first["finishedAt"], second["startedAt"]) >= 2


def test_redirects_are_followed(call: Call, target: Target) -> None:
    job = call(f"{target.url}/redirect/302/json", body=1)
    assert job["result"]["body"] == {"a": [1, "ü"]}
    assert [seen["method"] for seen in target.seen] == ["POST", "GET"]
    target.seen.clear()
    call(f"{target.url}/redirect/307/json", body=1)
    assert [(seen["method"], seen["body"]) for seen in target.seen] == [("POST", "1"), ("POST", "1")]


def test_sixth_redirect_fails(call: Call, target: Target) -> None:
    assert call(f"{target.url}/loop/4", method="GET")["status"] == "COMPLETED"
    assert len(target.seen) == 6
    assert "more than 5 redirects" in call(f"{target.url}/loop/5", method="GET")["error"]["message"]


def test_secrets_are_not_sent_to_another_origin(call: Call, target: Target) -> None:
    other = Target()
    with serving(other):
        headers = {"Authorization": "Bearer x", "Accept": "text/x"}
        call(f"{target.url}/redirect/302/{other.url}/json", method="GET", headers=headers)
        call(f"{target.url}/redirect/302/json", method="GET", headers=headers)
        assert "authorization" not in {name.lower() for name in other.seen[0]["headers"]}
        assert other.seen[0]["headers"]["accept"] == "text/x"
        assert "authorization" in {name.lower() for name in target.seen[-1]["headers"]}


@pytest.mark.parametrize("place", ["http://127.0.0.2:{}/json", "http://[::1]:{}/json", "ftp://x/"])
def test_redirect_to_a_private_address_is_discarded(http: Service, target: Target, place: str) -> None:
    location = place.format(target.server_port)
    job_id = http.post("HTTP_REQUEST", {"url": f"{target.url}/redirect/302/{location}", "method": "GET"})
    job = http.until(job_id, "FAILED", "COMPLETED")
    assert job["attempts"] == 1
    assert [attempt["outcome"] for attempt in http.attempts(job_id)] == ["discarded"]
    assert len(target.seen) == 1


def test_name_of_a_private_address_is_discarded(target: Target) -> None:
    # A queue of its own, which the other service's worker, that may reach 127.0.0.1, doesn't serve.
    service = Service({"JOBSVC_HTTP_ALLOW": "", "JOBSVC_HANDLERS": "", "JOBSVC_QUEUES": "apart"})
    try:
        service.worker()
        job_id = service.post("HTTP_REQUEST", {"url": f"http://localhost:{target.server_port}/json"})
        job = service.until(job_id, "FAILED")
        assert (job["attempts"], job["error"]["type"]) == (1, "Refused")
        assert "is not a public address" in job["error"]["message"]
        assert target.seen == []
    finally:
        service.close()


def test_refused_connection_is_retried(call: Call, target: Target) -> None:
    job = call("http://127.0.0.1:9/", retry={"max": 1, "interval": 0})
    assert job["attempts"] == 2
    assert job["error"]["type"] == "NewConnectionError"
