"""The console over plain HTTP: where it is, what its answers carry, and what they never do."""

import html
import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.http import bearer, refused
from tests.support.service import Service

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGES = (
    "",
    "jobs",
    "failures",
    "queues",
    "queues/default",
    "types/TEST_JOB",
    "schedules",
    "workers",
    "new",
    "webhooks",
)
LEAKS = ("Traceback (most", "psycopg", "SELECT ", "127.0.0.1:5", "postgresql://", "redis://", 'File "')


@pytest.fixture(scope="module")
def console(apart: dict[str, str]) -> Iterator[Service]:
    """A service without a worker."""
    service = Service(apart)
    yield service
    service.close()


@pytest.fixture(scope="module")
def off(apart: dict[str, str]) -> Iterator[Service]:
    service = Service({**apart, "JOBSVC_UI": "off"})
    yield service
    service.close()


@pytest.mark.parametrize(
    ("accept", "is_redirected"),
    [
        (HTML["Accept"], True),
        ("text/html", True),
        ("application/json, text/html;q=0.1", True),
        ("*/*", False),
        ("application/json", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_browser_is_led_to_the_console_and_curl_gets_links(console: Service, accept: str, is_redirected: bool) -> None:
    reply = console.client.get("/", headers={"Accept": accept})
    assert "Accept" in reply.headers["Vary"]
    if is_redirected:
        assert (reply.status_code, reply.headers["Location"]) == (302, "/ui/")
        return
    assert reply.status_code == 200
    for name, path in reply.json().items():
        assert console.client.get(path).status_code in (200, 503), name
    assert reply.json()["console"] == "/ui/"


def test_path_without_a_slash_leads_to_the_console(console: Service) -> None:
    reply = console.client.get("/ui", headers=HTML)
    assert (reply.status_code, reply.headers["Location"].removeprefix(console.url)) == (308, "/ui/")


def test_console_that_is_off_is_404(off: Service) -> None:
    for path in ("/ui/", "/ui", "/ui/jobs", "/ui/static/console.css"):
        refused(off.client.get(path, headers=HTML), 404)
    reply = off.client.get("/", headers=HTML)
    assert reply.status_code == 200
    assert "console" not in reply.json()


@pytest.mark.parametrize("path", ["nope", "jobs/x", "queues/nope", "types/nope", "schedules/nope", "static/nope"])
def test_unknown_page_is_a_problem_for_curl_and_a_page_for_a_browser(console: Service, path: str) -> None:
    refused(console.client.get(f"/ui/{path}"), 404)
    page = console.client.get(f"/ui/{path}", headers=HTML)
    assert page.status_code == 404
    if not path.startswith("static"):
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Accept" in page.headers["Vary"]


def test_wrong_parameter_names_itself(console: Service) -> None:
    problem = refused(console.client.get("/ui/jobs?nope=1"), 422)
    assert problem["errors"][0]["parameter"] == "nope"
    page = console.client.get("/ui/jobs?limit=x", headers=HTML)
    assert (page.status_code, "limit" in page.text) == (422, True)


@pytest.mark.parametrize("path", PAGES)
def test_page_is_read_with_get_alone(console: Service, path: str) -> None:
    got = console.client.get(f"/ui/{path}")
    head = console.client.head(f"/ui/{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"] == "text/html; charset=utf-8"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        refused(console.client.request(method, f"/ui/{path}"), 405)


@pytest.mark.parametrize("path", [*PAGES, "nope"])
def test_page_has_a_strict_policy(console: Service, path: str) -> None:
    reply = console.client.get(f"/ui/{path}", headers=HTML)
    policy = reply.headers.get_list("Content-Security-Policy")
    assert len(policy) == 1
    parts = dict(part.split(" ", 1) for part in policy[0].split("; "))
    assert parts["default-src"] == parts["base-uri"] == parts["frame-ancestors"] == "'none'"
    assert {parts[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
    assert "unsafe" not in policy[0]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["X-Frame-Options"] == "DENY"
    assert reply.headers["Referrer-Policy"] == "same-origin"
    assert (
        re.search(r"<script(?![^>]* src=)|<style|<[^>]* (style|on[a-z]+)=|https?://(?!127\.0\.0\.1)", reply.text)
        is None
    )


def test_unchanged_page_is_304_and_a_changed_one_is_not(console: Service) -> None:
    console.post(delay=3600)
    first = console.client.get("/ui/queues")
    unchanged = {"If-None-Match": first.headers["ETag"]}
    seen = console.client.get("/ui/queues", headers=unchanged)
    assert (seen.status_code, seen.content) in ((304, b""), (200, seen.content))
    assert console.client.post("/queues/low/pause").is_success
    changed = console.client.get("/ui/queues", headers=unchanged)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]
    assert console.client.post("/queues/low/resume").is_success


def test_static_files_are_sent_again_only_if_they_changed(console: Service) -> None:
    text = console.client.get("/ui/").text
    files = {html.unescape(one) for one in re.findall(r'(?:src|href|data-[a-z]+)="(/ui/static/[^"]+)"', text)}
    assert {file.rpartition("/")[2] for file in files} == {
        "console.css", "console.js", "htmx.min.js", "icon.svg", "icon-alert.svg"
    }  # fmt: skip
    for file in files:
        reply = console.client.get(file)
        assert reply.status_code == 200
        assert "text/html" not in reply.headers["Content-Type"]
        assert reply.headers["Cache-Control"] in ("no-cache", "private, no-cache")
        again = console.client.get(file, headers={"If-None-Match": reply.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_page_itself_is_kept_by_no_shared_cache(console: Service) -> None:
    assert console.client.get("/ui/jobs").headers["Cache-Control"] in ("no-store", "private, no-cache")


@pytest.mark.parametrize("path", ["", "jobs?status=FAILED&tag=a%20b", "queues", "schedules", "workers", "jobs/{}"])
def test_command_of_a_page_reads_the_same_from_the_api(console: Service, path: str) -> None:
    job_id = console.post(delay=3600)
    text = console.client.get(f"/ui/{path.format(job_id)}").text
    command = html.unescape(re.findall(r"<code>(curl .*?)</code>", text)[-1])
    assert shlex.split(command)[1].startswith(console.url)
    done = subprocess.run(["sh", "-c", f"{command} -s -f"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(("{", "["))


def test_paths_have_the_prefix_of_a_trusted_proxy(apart: dict[str, str]) -> None:
    key = "k-admin"
    service = Service({**apart, "JOBSVC_API_KEYS": f"boss:admin:{key}", "JOBSVC_TRUST_PROXY": "1"}, key=key)
    try:
        headers = {**HTML, "X-Forwarded-Prefix": "/in/front", "X-Forwarded-Host": "jobs.example",
                   "X-Forwarded-Proto": "https"}  # fmt: skip
        job_id = service.post(delay=3600, tags=["a"])
        assert service.client.get("/", headers=headers).headers["Location"] == "/in/front/ui/"
        assert service.client.get("/ui", headers=headers).headers["Location"].endswith("/in/front/ui/")
        assert service.client.get("/", headers={**headers, "Accept": "*/*"}).json()["jobs"] == "/in/front/jobs"
        for path in (*PAGES, f"jobs/{job_id}", "jobs?tag=a&limit=1", "nope"):
            page = service.client.get(f"/ui/{path}", headers=headers).text
            links = re.findall(r'(?:href|src|action|hx-[a-z]+|data-(?:api|ui|go|events|ok|alert))="(/[^"]*)"', page)
            assert links
            assert [link for link in links if not link.startswith("/in/front/")] == [], path
            assert "https://jobs.example/in/front/" in html.unescape(page) or path == "nope"
        found = service.client.get(f"/ui/jobs?q={job_id}", headers=headers)
        assert found.headers["Location"] == f"/in/front/ui/jobs/{job_id}"
        assert service.client.get("/ui/", headers={**headers, **bearer("wrong")}).status_code == 401
    finally:
        service.close()
