"""Keys, scopes, loopback, and the dashboard behind them."""

import base64
import hashlib
from collections.abc import Iterator

import pytest

from tests.acceptance.test_bad_input import refused
from tests.support import Service

READ, WRITE, ADMIN = "r-key", "w-key:with:colons", "a-key"
HASHED = hashlib.sha256(ADMIN.encode()).hexdigest()


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    service = Service({"JOBSVC_API_KEYS": f"eye:read:{READ}, hand:write:{WRITE}, boss:admin:sha256:{HASHED.upper()}"})
    yield service
    service.close()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anyone:{key}".encode()).decode()}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_key(guarded: Service, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/jobs"), ("GET", "/jobs/x"), ("GET", "/nope"), ("GET", "/rq/")])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        {"Authorization": "Bearer"},
        bearer(HASHED),
        bearer("ü\udc80"),
        {"X-API-Key": "wrong"},
        {"Authorization": "x"},
    ],
)
def test_no_key_or_a_wrong_one(guarded: Service, method: str, path: str, headers: dict[str, str]) -> None:
    raw = {name: value.encode("utf-8", "surrogateescape") for name, value in headers.items()}
    reply = guarded.client.request(method, path, headers=raw)
    refused(reply, 401)
    assert reply.headers["WWW-Authenticate"].startswith("Basic" if path == "/rq/" else "Bearer")


@pytest.mark.parametrize(("key", "status"), [(READ, 403), (WRITE, 202), (ADMIN, 202)])
def test_posting_needs_write(guarded: Service, key: str, status: int) -> None:
    assert guarded.client.post("/jobs", headers=bearer(key)).status_code == status


@pytest.mark.parametrize("key", [READ, WRITE, ADMIN])
def test_reading_needs_read(guarded: Service, key: str) -> None:
    job_id = guarded.client.post("/jobs", headers={"X-API-Key": WRITE}).json()["jobId"]
    assert guarded.client.get(f"/jobs/{job_id}", headers=bearer(key)).status_code == 200
    assert guarded.client.get(f"/jobs/{job_id}", headers={"X-API-Key": key}).status_code == 200


@pytest.mark.parametrize(("key", "status"), [(READ, 403), (WRITE, 403), (ADMIN, 200)])
@pytest.mark.parametrize("path", ["/rq/", "/rq/0/data/workers.json", "/rq/static/css/main.css"])
def test_the_dashboard_needs_admin(guarded: Service, path: str, key: str, status: int) -> None:
    assert guarded.client.get(path, headers=basic(key)).status_code == status


def test_a_lesser_key_is_told_so(guarded: Service) -> None:
    problem = refused(guarded.client.post("/jobs", headers=bearer(READ)), 403)
    assert "write" in problem["detail"]


@pytest.mark.parametrize("path", ["/rq/", "/rq/0/view", "/rq/0/view/workers", "/rq/0/data/queues.json"])
def test_the_dashboards_pages(api: Service, path: str) -> None:
    api.post()
    reply = api.client.get(path, follow_redirects=True)
    assert reply.status_code == 200
    assert "RQ dashboard" in reply.text or reply.json()["queues"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Referer": "http://evil.example/rq/"},
        {"Referer": "http://127.0.0.1.evil.example/"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/rq/requeue/default"), ("POST", "/rq/queue/default/compact")])
def test_the_dashboard_refuses_other_sites(api: Service, method: str, path: str, headers: dict[str, str]) -> None:
    refused(api.client.request(method, path, headers=headers), 403)


def test_a_page_of_another_site_can_post_no_job(api: Service) -> None:
    refused(api.client.post("/jobs", headers={"Sec-Fetch-Site": "cross-site"}), 403)
    refused(api.client.post("/jobs", headers={"Origin": "http://evil.example"}), 403)


def test_the_dashboard_answers_to_its_own_pages(api: Service) -> None:
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": api.url}):
        assert api.client.get("/rq/", headers=headers).status_code == 200


def test_an_unknown_page_of_the_dashboard(api: Service) -> None:
    for path in ("nope", "0/view/job/nope", "7/view", "x/view"):
        refused(api.client.get(f"/rq/{path}"), 404)
    for size, page in (("0", "0"), ("x", "1"), ("8", "x"), ("8", "-1"), ("8", "9" * 5000)):
        refused(api.client.get(f"/rq/0/data/jobs/default/queued/{size}/asc/{page}.json"), 404)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "localhost.evil.example", "10.0.0.1"])
def test_without_keys_another_host_name_is_refused(api: Service, host: str) -> None:
    refused(api.client.post("/jobs", headers={"Host": host}), 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1", "[::1]:3000"])
def test_without_keys_loopbacks_names_are_served(api: Service, host: str) -> None:
    assert api.client.post("/jobs", headers={"Host": host}).status_code == 202


def test_anonymous_callers_can_be_let_in() -> None:
    service = Service({"JOBSVC_ALLOW_ANONYMOUS": "1"})
    try:
        assert service.client.post("/jobs", headers={"Host": "jobs.example"}).status_code == 202
    finally:
        service.close()
