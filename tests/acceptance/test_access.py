"""Keys and scopes; which requests without a key, or with a password that a browser adds, are this machine's own.

The class: a request of another site or user that passes as one's own. Its members: another Host name (DNS
rebinding), each header by which a proxy names itself, a page of another origin (another scheme, host or port, an
opaque one, one that only resembles ours), on the view's path and on the fast path of POST /jobs; and keys that are
guessed. Reversed: what is one's own and must pass (Host in another spelling, requests of no browser).
"""

import hashlib
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.support.http import basic, bearer, refused
from tests.support.service import Service

READ, WRITE, ADMIN = "r-key", "w-key:with:colons", "a-key"
HASHED = hashlib.sha256(ADMIN.encode()).hexdigest()
CHALLENGES = ['Basic realm="jobsvc", charset="UTF-8"', "Bearer"]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    service = Service({"JOBSVC_API_KEYS": f"eye:read:{READ}, hand:write:{WRITE}, boss:admin:sha256:{HASHED.upper()}"})
    yield service
    service.close()


def client_at(service: Service, address: str) -> httpx.Client:
    """A client whose connections come from another of this machine's loopback addresses."""
    return httpx.Client(base_url=service.url, transport=httpx.HTTPTransport(local_address=address), timeout=30)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_key(guarded: Service, path: str) -> None:
    assert guarded.client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/jobs"),
        ("GET", "/jobs/x"),
        ("GET", "/jobs/x/explain"),
        ("DELETE", "/nope"),
        ("GET", "/rq/"),
        ("GET", "/rq/static/css/main.css"),
        ("GET", "/docs"),
        ("HEAD", "/metrics"),
    ],
)
def test_missing_or_wrong_key_is_401(guarded: Service, method: str, path: str, request: pytest.FixtureRequest) -> None:
    wrong = [bearer("wrong"), bearer(HASHED), bearer("ü\udc80"), {"X-API-Key": "wrong"}, basic("wrong")]
    missing: list[dict[str, str]] = [{}, {"Authorization": "Bearer"}, {"Authorization": "x"}, basic("")]
    # Each case is another client: together they send more wrong keys than one may.
    number = sum(request.node.name.encode()) % 250 + 2
    with client_at(guarded, f"127.0.1.{number}") as client:
        for headers in [*wrong, *missing]:
            raw = {name: value.encode("utf-8", "surrogateescape") for name, value in headers.items()}
            reply = client.request(method, path, headers=raw)
            assert reply.status_code == 401
            if method != "HEAD":
                refused(reply, 401)
            assert reply.headers.get_list("WWW-Authenticate") == CHALLENGES


@pytest.mark.parametrize(("key", "status"), [(READ, 403), (WRITE, 202), (ADMIN, 202)])
def test_posting_needs_a_write_key(guarded: Service, key: str, status: int) -> None:
    assert guarded.client.post("/jobs", headers=bearer(key)).status_code == status


@pytest.mark.parametrize("key", [READ, WRITE, ADMIN])
def test_reading_needs_a_read_key(guarded: Service, key: str) -> None:
    job_id = guarded.client.post("/jobs", headers={"X-API-Key": WRITE}).json()["jobId"]
    for headers in (bearer(key), {"X-API-Key": key}, basic(key)):
        assert guarded.client.get(f"/jobs/{job_id}", headers=headers).status_code == 200
        assert guarded.client.get(f"/jobs/{job_id}/explain", headers=headers).status_code == 200


@pytest.mark.parametrize(("key", "status"), [(READ, 403), (WRITE, 403), (ADMIN, 200)])
@pytest.mark.parametrize("path", ["/rq/", "/rq/0/data/workers.json", "/rq/static/css/main.css"])
def test_dashboard_needs_an_admin_key(guarded: Service, path: str, key: str, status: int) -> None:
    assert guarded.client.get(path, headers=basic(key)).status_code == status


def test_insufficient_scope_is_403(guarded: Service) -> None:
    problem = refused(guarded.client.post("/jobs", headers=bearer(READ)), 403)
    assert "write" in problem["detail"]


def test_too_many_wrong_keys_are_429_and_a_valid_key_passes(guarded: Service) -> None:
    log = len(guarded.api.output)
    with client_at(guarded, "127.0.2.1") as client, client_at(guarded, "127.0.2.2") as neighbour:
        for number in range(40):
            refused(client.get("/jobs"), 401)  # a missing key is no wrong one
            reply = client.get(f"/jobs/{uuid4()}", headers=bearer(f"guess-{number}"))
            refused(reply, 401 if number < 20 else 429)
            assert number < 20 or 1 <= int(reply.headers["Retry-After"]) <= 60
            assert client.post("/jobs", headers=bearer(WRITE)).status_code == 202
        refused(client.post("/jobs", headers={"X-API-Key": "guess"}, json={}), 429)
        refused(client.get("/rq/", headers=basic("guess")), 429)
        assert client.get("/jobs", headers=basic(READ)).status_code == 200
        refused(client.post("/jobs", headers=bearer(READ)), 403)
        refused(neighbour.get("/jobs", headers=bearer("guess")), 401)
    lines = [line for line in guarded.api.output[log:].splitlines() if "wrong key" in line]
    assert len([line for line in lines if "from 127.0.2.1," in line]) == 42
    assert len([line for line in lines if "from 127.0.2.2," in line]) == 1
    assert "GET /jobs/<uuid:job_id>" in lines[0]
    assert "guess" not in guarded.api.output


OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost:{port}"},
    {"Origin": "{own}.evil.example"},
    {"Origin": "http://evil.example@127.0.0.1:{port}"},
    {"Origin": "{own} {own}"},
    {"Origin": "{own}", "Referer": "http://evil.example/", "Sec-Fetch-Site": "cross-site"},
    {"Referer": "http://evil.example/rq/"},
    {"Referer": "http://127.0.0.1.evil.example/"},
    {"Referer": "http://evil.example/{own}"},
    {"Referer": "about:blank"},
    {"Referer": "http://[/"},
]
OWN_PAGES = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "{own}"},
    {"Origin": "{own}", "Sec-Fetch-Site": "same-origin", "Referer": "{own}/docs?a=b"},
    {"Referer": "{own}/docs"},
    {"Referer": "{own}"},
    {"Host": "LocalHost:{port}", "Origin": "http://localhost:{port}"},
    {"Host": "localhost", "Origin": "http://localhost"},
    {"Host": "localhost:80", "Origin": "http://LOCALHOST"},
    {"Host": "[::1]:{port}", "Origin": "http://[::1]:{port}"},
]


def filled(headers: dict[str, str], service: Service) -> dict[str, str]:
    return {name: value.format(own=service.url, port=service.port) for name, value in headers.items()}


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_page_of_another_site_changes_nothing(api: Service, guarded: Service, headers: dict[str, str]) -> None:
    for service, key in ((api, {}), (guarded, basic(ADMIN))):
        # Not kept: the server may close a connection whose body was not read.
        sent = {**key, **filled(headers, service), "Connection": "close"}
        for path in ("/jobs", "/rq/requeue/jobsvc.default", "/jobs/cancel?tag=x"):
            refused(service.client.post(path, headers=sent), 403)
        refused(service.client.post("/jobs", headers=sent, json={}), 403)
        refused(service.client.put("/schedules/x", headers=sent, json={}), 403)
        refused(service.client.delete("/jobs/x", headers=sent), 403)
    # A page can send neither of these without a CORS permission, and there is none.
    for own_key in (bearer(WRITE), {"X-API-Key": WRITE}):
        sent = {**own_key, **filled(headers, guarded)}
        assert guarded.client.post("/jobs", headers=sent, json={}).status_code == 202


@pytest.mark.parametrize("headers", OWN_PAGES)
def test_own_pages_and_requests_without_a_browser_pass(api: Service, guarded: Service, headers: dict[str, str]) -> None:
    for service, key in ((api, {}), (guarded, basic(ADMIN))):
        sent = {**key, **filled(headers, service)}
        assert service.client.post("/jobs", headers=sent, json={}).status_code == 202
        assert service.client.post("/jobs", headers=sent).status_code == 202
        assert service.client.post("/rq/requeue/jobsvc.default", headers=sent).status_code == 200


def test_no_response_has_a_cors_header(guarded: Service) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,x-api-key"
    for path in ("/jobs", "/rq/", "/docs", "/nope"):
        for method in ("OPTIONS", "GET"):
            reply = guarded.client.request(method, path, headers={**asked, **bearer(ADMIN)})
            assert not [name for name in reply.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "localhost.evil.example", "10.0.0.1", "", "[x]"])
def test_without_keys_another_host_name_is_refused(api: Service, host: str) -> None:
    refused(api.client.post("/jobs", headers={"Host": host}), 403)
    refused(api.client.post("/jobs", headers={"Host": host}, json={}), 403)


LOOPBACK = [
    "localhost",
    "localhost:3000",
    "LOCALHOST:3000",
    "LocalHost.",
    "localhost.:3000",
    "127.0.0.1",
    "127.0.0.2:1",
]
LOOPBACK += ["127.0.0.2:1", "[::1]:3000", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]:80"]


@pytest.mark.parametrize("host", LOOPBACK)
def test_without_keys_loopback_names_are_served(api: Service, host: str) -> None:
    assert api.client.post("/jobs", headers={"Host": host}).status_code == 202
    assert api.client.post("/jobs", headers={"Host": host}, json={}).status_code == 202


FORWARDED = ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via", "X-Forwarded-Proto", "X-Forwarded-Host"]
FORWARDED += ["X-Forwarded-Prefix", "x-forwarded-port", "CF-Connecting-IP", "True-Client-IP", "X-Forwarded-Server"]


@pytest.mark.parametrize("name", FORWARDED)
@pytest.mark.parametrize("value", ["for=127.0.0.1", "127.0.0.1", ""])
def test_without_keys_a_forwarded_request_is_refused(api: Service, name: str, value: str) -> None:
    for path in ("/jobs", "/rq/", "/docs", "/metrics"):
        assert "JOBSVC_API_KEYS" in refused(api.client.get(path, headers={name: value}), 403)["detail"]
    refused(api.client.post("/jobs", headers={name: value}), 403)
    refused(api.client.post("/jobs", headers={name: value}, json={}), 403)
    assert api.client.get("/healthz", headers={name: value}).status_code == 200


def test_with_keys_or_public_a_forwarded_request_is_served(guarded: Service) -> None:
    anybody = Service({"JOBSVC_ALLOW_ANONYMOUS": "1"})
    try:
        for name in FORWARDED:
            headers = {name: "10.0.0.1", "Host": "jobs.example"}
            for client, key in ((guarded.client, bearer(WRITE)), (anybody.client, {})):
                assert client.post("/jobs", headers={**headers, **key}).status_code == 202
                assert client.post("/jobs", headers={**headers, **key}, json={}).status_code == 202
    finally:
        anybody.close()
