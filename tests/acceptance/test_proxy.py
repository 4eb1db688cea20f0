"""JOBSVC_TRUST_PROXY: behind TLS and a path prefix everything works; without it such headers change nothing.

The class: what the service takes for its own scheme, host, path or client although a proxy stands in front. Its
members: Location, Link, redirects, the links and scripts of /docs and /rq/, the servers of the OpenAPI document,
`instance` of a problem, the Origin check, and the address whose wrong keys are counted; and headers that a proxy did
not write: several values, malformed ones.
"""

import sys
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.deploy import files
from tests.support.browser import chromium
from tests.support.http import basic, bearer, refused
from tests.support.service import Process, Service, eventually, free_port

KEY = "k-admin"
HOST = "jobs.example:8443"
PROXIED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": HOST,
    "X-Forwarded-Prefix": "/in/front",
    "X-Forwarded-For": "198.51.100.7",
}


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    service = Service({**apart, "JOBSVC_API_KEYS": f"boss:admin:{KEY}", "JOBSVC_TRUST_PROXY": "1"}, key=KEY)
    yield service
    service.close()


def test_links_and_redirects_have_the_prefix(service: Service) -> None:
    posted = service.client.post("/jobs", headers=PROXIED, json={})
    assert posted.headers["Location"] == f"/in/front/jobs/{posted.json()['jobId']}"
    service.post()
    listed = service.client.get("/jobs?limit=1", headers=PROXIED)
    assert listed.headers["Link"].startswith("</in/front/jobs?limit=1&cursor=")
    assert service.client.get("/rq", headers=PROXIED).headers["Location"] == "/in/front/rq/"
    assert service.client.get("/openapi.json", headers=PROXIED).json()["servers"] == [{"url": "/in/front"}]
    assert refused_path(service, "/jobs/x") == "/in/front/jobs/x"
    page = service.client.get("/rq/", headers=PROXIED).text
    assert 'src="/in/front/rq/static/' in page
    assert '="/rq' not in page


def test_encoded_prefix_is_not_encoded_again(service: Service) -> None:
    headers = {**PROXIED, "X-Forwarded-Prefix": "/a%20b"}
    posted = service.client.post("/jobs", headers=headers, json={})
    assert posted.headers["Location"] == f"/a%20b/jobs/{posted.json()['jobId']}"
    service.post()
    assert service.client.get("/jobs?limit=1", headers=headers).headers["Link"].startswith("</a%20b/jobs?")


def refused_path(service: Service, path: str) -> str:
    return str(service.client.get(path, headers=PROXIED).json()["instance"])


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://jobs.example:8443", 202),
        ("https://JOBS.example:8443", 202),
        ("http://jobs.example:8443", 403),
        ("https://jobs.example", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_pages_of_the_proxys_origin_are_own_pages(service: Service, origin: str, status: int) -> None:
    headers = {**PROXIED, **basic(KEY), "Origin": origin, "Connection": "close"}
    assert service.client.post("/jobs", headers=headers).status_code == status
    assert service.client.post("/jobs", headers=headers, json={}).status_code == status
    default_port = {**headers, "X-Forwarded-Host": "jobs.example", "Origin": "https://jobs.example"}
    assert service.client.post("/jobs", headers=default_port).status_code == 202


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "a b", "X-Forwarded-Prefix": "//evil.example"},
        {"X-Forwarded-Host": "evil.example/x", "X-Forwarded-Prefix": "http://evil.example"},
        {"X-Forwarded-Host": "user@evil.example", "X-Forwarded-Prefix": "/a/../\\b"},
        {"X-Forwarded-Prefix": '/"><script>', "X-Forwarded-For": "<script>"},
        {"X-Forwarded-Prefix": "/"},
    ],
)
def test_malformed_headers_are_ignored(service: Service, headers: dict[str, str]) -> None:
    assert service.client.get("/rq", headers=headers).headers["Location"] == "/rq/"
    own = {**headers, **basic(KEY), "Origin": service.url}
    assert service.client.post("/jobs", headers=own).headers["Location"].startswith("/jobs/")


def test_last_proxy_is_trusted(service: Service) -> None:
    several = {name: f"evil.example, {value}" for name, value in PROXIED.items()}
    assert service.client.get("/rq", headers=several).headers["Location"] == "/in/front/rq/"
    own = {**several, **basic(KEY), "Origin": f"https://{HOST}"}
    assert service.client.post("/jobs", headers=own).status_code == 202
    for number in range(40):
        wrong = {**bearer("guess"), "X-Forwarded-For": f"10.0.0.{number}, 198.51.100.7"}
        refused(service.client.get("/jobs", headers=wrong), 401 if number < 20 else 429)
    for number in range(40):
        wrong = {**bearer("guess"), "X-Forwarded-For": f"2001:db8:0:0:{number}::1"}
        refused(service.client.get("/jobs", headers=wrong), 401 if number < 20 else 429)
    refused(service.client.get("/jobs", headers={**bearer("guess"), "X-Forwarded-For": "198.51.100.8"}), 401)
    assert "wrong key from 198.51.100.7, GET /jobs" in service.api.output


def test_without_the_setting_the_headers_change_nothing(apart: dict[str, str]) -> None:
    service = Service({**apart, "JOBSVC_API_KEYS": f"boss:admin:{KEY}"}, key=KEY)
    try:
        posted = service.client.post("/jobs", headers=PROXIED, json={})
        assert posted.headers["Location"].startswith("/jobs/")
        assert service.client.get("/rq", headers=PROXIED).headers["Location"] == "/rq/"
        assert "servers" not in service.client.get("/openapi.json", headers=PROXIED).json()
        own = {**PROXIED, **basic(KEY)}
        refused(service.client.post("/jobs", headers={**own, "Origin": f"https://{HOST}"}), 403)
        assert service.client.post("/jobs", headers={**own, "Origin": service.url}).status_code == 202
        service.client.get("/jobs", headers={**PROXIED, **bearer("guess")})
        assert "wrong key from 127.0.0.1," in service.api.output
    finally:
        service.close()


@pytest.mark.parametrize("value", ["1", "2", "-1", "yes"])
def test_wrong_setting_is_refused_at_start(value: str) -> None:
    process = Process(sys.executable, "-m", "jobsvc.serve", env={"JOBSVC_TRUST_PROXY": value})
    try:
        assert process.wait() == 1
        assert process.output.startswith("jobsvc: JOBSVC_TRUST_PROXY: ")
        assert len(process.output.splitlines()) == 1
    finally:
        process.kill()


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the service behind nginx, with TLS and a prefix, by deploy/nginx/jobsvc.conf."""
    program = files.find("nginx")
    if program is None or not files.find("openssl"):
        pytest.skip("nginx or openssl is not installed")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port(None)
    files.certificate(folder)
    config = files.nginx(folder, port, [f"127.0.0.1:{service.port}"] * 2)
    process = Process(program, "-e", "stderr", "-c", str(config))
    url = f"https://localhost:{port}/jobsvc"
    try:
        eventually(lambda: answers(url) or process.popen.poll() is not None, 20)
        assert process.popen.poll() is None, process.output
        yield url
    finally:
        process.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", verify=False).status_code == 200
    except httpx.TransportError:
        return False


def test_pages_work_behind_nginx_with_tls_and_a_prefix(nginx: str, service: Service) -> None:
    """In a browser: the dashboard fills its lists and its links lead on, and /docs posts a job."""
    waiting = service.post(delay=3600)
    eventually(lambda: service.rq_places(waiting) == ["scheduled"])
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        credentials = {"username": "anyone", "password": KEY}
        context = browser.new_context(http_credentials=credentials, ignore_https_errors=True)  # type: ignore[arg-type]
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "response", lambda reply: errors.append(reply.url) if reply.status >= 400 and reply.status != 401 else None
        )
        page.goto(f"{nginx}/rq")
        page.locator("[data-role=queue] a").first.wait_for()
        page.get_by_text("Jobs", exact=True).click()
        page.goto(f"{nginx}/rq/0/view/jobs/jobsvc.default/scheduled/8/dsc/1")
        page.locator(f"[data-job-id='{waiting}'] .job_id a").click()
        page.locator("#job-data p").first.wait_for()
        page.locator("#delete-job-btn").click()
        page.locator("#confirmation-modal-yes").click()
        page.locator("[data-role=refusal]", has_text="the job was SCHEDULED").wait_for()
        page.goto(f"{nginx}/docs")
        page.locator("#operations-Jobs-create_job .opblock-summary-control").click()
        page.locator("#operations-Jobs-create_job button.execute").click()
        replied = page.locator("#operations-Jobs-create_job .live-responses-table tbody .response-col_status").first
        replied.filter(has_text="202").wait_for()
        browser.close()
    assert [error for error in errors if not error.endswith("/delete")] == []
