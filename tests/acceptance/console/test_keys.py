"""The key decides what the console shows; and pages of other sites can't press its buttons."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.acceptance.console.conftest import HANDLERS, WEBHOOKS
from tests.support.browser import Visitor, confirm
from tests.support.http import basic, bearer, refused
from tests.support.service import Service, page_server

READ, WRITE, ADMIN = "k-reader-7", "k-writer-7", "k-boss-7"
SECRET = "s3cret-value"
CHANGES = "[hx-post], [hx-put], [hx-delete], form[data-json], [data-method], a[href*='/ui/new']"
"""What sends a request that changes something, or leads to it."""

BULK = "[hx-post*='/jobs/retry'], [hx-post*='/jobs/cancel'], [hx-post*='/jobs/delete'], [hx-post*='/pause']"
PAGES = ("", "jobs", "jobs?status=FAILED", "failures", "queues", "queues/default", "types/BROKEN", "schedules",
         "schedules/daily", "workers", "webhooks")  # fmt: skip


@pytest.fixture(scope="module")
def console(apart: dict[str, str]) -> Iterator[Service]:
    keys = f"eye:read:{READ},hand:write:{WRITE},boss:admin:{ADMIN}"
    env = {**apart, **HANDLERS, **WEBHOOKS, "JOBSVC_API_KEYS": keys}
    service = Service(env, key=ADMIN)
    service.worker()
    body = {"cron": "0 8 * * *", "job": {"type": "HTTP_REQUEST", "payload": request()}}
    assert service.client.put("/schedules/daily", json=body).is_success
    yield service
    service.close()


def request() -> dict[str, Any]:
    return {"url": "http://127.0.0.1:9/x", "headers": {"Authorization": SECRET, "X-Plain": "open"}}


def credentials(key: str) -> dict[str, Any]:
    return {"http_credentials": {"username": "anyone", "password": key}}


def requested(page: Page, method: str, path: str) -> int:
    """The status of a request that a script of the page sends."""
    script = "([method, path]) => fetch(path, {method}).then(reply => reply.status)"
    return int(page.evaluate(script, [method, path]))


@pytest.fixture(scope="module")
def failed(console: Service) -> str:
    job_id = console.post("BROKEN", webhookUrl="http://127.0.0.1:9/")
    console.until(job_id, "FAILED")
    return job_id


def test_read_key_sees_no_buttons(console: Service, visitor: Visitor, failed: str) -> None:
    visitor.expected.append("status of 40[13]")
    waiting = console.post(delay=3600)
    page = visitor.open("/ui/", **credentials(READ))
    for path in (*PAGES, f"jobs/{failed}", f"jobs/{waiting}"):
        page.goto(f"{console.url}/ui/{path}")
        expect(page.locator("main h1")).to_be_visible()
        assert page.locator(CHANGES).count() == 0, path
    reply = page.goto(f"{console.url}/ui/new")
    assert reply is not None
    assert reply.status == 403
    for method, path in (
        ("POST", "/jobs"),
        ("POST", f"/jobs/{failed}/retry"),
        ("POST", f"/jobs/{waiting}/cancel"),
        ("POST", "/queues/default/pause"),
        ("POST", "/jobs/retry?status=FAILED"),
        ("POST", "/schedules/daily/run"),
        ("DELETE", f"/jobs/{failed}"),
    ):
        assert requested(page, method, path) == 403, path
    assert (console.job(failed)["status"], console.job(waiting)["status"]) == ("FAILED", "SCHEDULED")


def test_write_key_sees_only_the_buttons_of_jobs(console: Service, visitor: Visitor, failed: str) -> None:
    visitor.expected.append("status of 401")
    page = visitor.open("/ui/", **credentials(WRITE))
    for path in (*PAGES, f"jobs/{failed}"):
        page.goto(f"{console.url}/ui/{path}")
        assert page.locator(f"[hx-put], [hx-delete], [data-method=DELETE], {BULK}").count() == 0, path
    page.goto(f"{console.url}/ui/jobs/{failed}")
    expect(page.get_by_role("button", name="Retry", exact=True)).to_be_visible()
    page.goto(f"{console.url}/ui/new?type=BROKEN")
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url("**/ui/jobs/*-*")


def test_browser_uses_the_key_of_the_console_for_the_api(console: Service, visitor: Visitor) -> None:
    visitor.expected.append("status of 401")
    job_id = console.post("BROKEN")
    console.until(job_id, "FAILED")
    page = visitor.open(f"/ui/jobs/{job_id}", **credentials(ADMIN))
    page.get_by_role("button", name="Retry", exact=True).click()
    expect(page.locator(".title .status")).to_have_text("COMPLETED")
    page.get_by_role("button", name="Delete").click()
    confirm(page)
    page.wait_for_url("**/ui/jobs")
    assert console.client.get(f"/jobs/{job_id}").status_code == 404


def test_console_without_or_with_a_wrong_key_is_401(console: Service) -> None:
    for headers in ({}, bearer("wrong"), basic("wrong")):
        for path in ("/ui/", "/ui/jobs", "/ui/static/console.css", "/ui/nope", "/"):
            reply = console.client.get(path, headers={"Accept": "text/html", "Authorization": "", **headers})
            refused(reply, 401)
            assert 'Basic realm="jobsvc", charset="UTF-8"' in reply.headers.get_list("WWW-Authenticate")


def test_read_key_sees_no_value_of_a_secret_header(console: Service) -> None:
    job_id = console.post("HTTP_REQUEST", request(), retry={"max": 0})
    for key, is_shown in ((READ, False), (ADMIN, True)):
        pages = {path: console.client.get(f"/ui/{path}", headers=basic(key)) for path in (
            f"jobs/{job_id}", "schedules/daily", "jobs", "schedules", "failures"
        )}  # fmt: skip
        assert {reply.status_code for reply in pages.values()} == {200}
        assert any(SECRET in reply.text for reply in pages.values()) == is_shown, key
        assert "open" in pages["schedules/daily"].text
    tags = {console.client.get("/ui/schedules/daily", headers=basic(key)).headers["ETag"] for key in (READ, ADMIN)}
    assert len(tags) == 2


def test_command_of_a_page_takes_the_key_from_a_variable(console: Service) -> None:
    for key in (READ, WRITE, ADMIN):
        text = console.client.get("/ui/jobs", headers=basic(key)).text
        assert "$KEY" in text
        assert key not in text


@pytest.fixture
def other_site(console: Service, failed: str) -> Iterator[str]:
    """The URL of a page of another site, whose form posts a retry to the service."""
    form = f"<form method=post action='{console.url}/jobs/{failed}/retry'><button>win</button></form>"
    frame = f"<iframe src='{console.url}/ui/'></iframe>"
    with page_server(f"<!doctype html><title>other</title>{form}{frame}", "127.0.0.2") as url:
        yield url


def test_form_of_another_site_is_403_and_it_frames_no_page(
    console: Service, visitor: Visitor, failed: str, other_site: str
) -> None:
    visitor.expected += ["^request: http://127.0.0.2:", "status of 40[134]", "frame-ancestors", "X-Frame-Options"]
    size: ViewportSize = {"width": 800, "height": 600}
    page = visitor.open("/ui/", **credentials(ADMIN), viewport=size)
    page.goto(other_site, wait_until="networkidle")
    assert page.frames[1].locator("main").count() == 0
    with page.expect_response(f"**/jobs/{failed}/retry") as seen:
        page.get_by_role("button", name="win").click()
    assert seen.value.status == 403
    assert json.loads(seen.value.body())["status"] == 403
    assert console.job(failed)["status"] == "FAILED"
