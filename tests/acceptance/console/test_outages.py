"""The console while Redis or Postgres is unavailable: it says so, and keeps what it last showed."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.acceptance.console.conftest import HANDLERS
from tests.acceptance.console.test_http import HTML, LEAKS, PAGES
from tests.faults.conftest import Ground
from tests.support.browser import Visitor, confirm
from tests.support.http import refused
from tests.support.service import Service


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("ground"), **HANDLERS)
    ground.service.worker()
    yield ground
    ground.stop()


@pytest.fixture(scope="module")
def console(ground: Ground) -> Service:
    return ground.service


def test_stopped_redis_is_an_alert_and_posting_works(ground: Ground, console: Service, visitor: Visitor) -> None:
    page = visitor.open("/ui/")
    expect(page.locator("#queue-default")).to_be_visible()
    ground.valkey.stop()
    try:
        expect(page.locator("main .alert").first).to_contain_text("Redis can't be used")
        expect(page.locator("#queue-default")).to_be_visible()
        for path in ("workers", "queues/default", "types/PARCEL", "jobs", "failures", "schedules", "webhooks"):
            reply = page.goto(f"{console.url}/ui/{path}")
            assert reply is not None
            assert reply.status == 200, path
            assert not [leak for leak in LEAKS if leak in reply.text()]
        page.goto(f"{console.url}/ui/new?type=PARCEL")
        page.get_by_label("to *").fill("Ann")
        page.get_by_role("button", name="Post job").click()
        page.wait_for_url("**/ui/jobs/*-*")
        expect(page.locator(".title .status")).to_have_text("PENDING")
    finally:
        ground.valkey.start()
    expect(page.locator(".title .status")).to_have_text("COMPLETED", timeout=60_000)
    page.goto(f"{console.url}/ui/")
    expect(page.locator("main .alert", has_text="Redis")).to_have_count(0)


def test_stopped_postgres_greys_the_last_data_and_then_goes_on(
    ground: Ground, console: Service, visitor: Visitor
) -> None:
    visitor.expected += ["status of 503", "htmx", "net::ERR"]
    job_id = console.post(delay=3600)
    page = visitor.open(f"/ui/jobs/{job_id}")
    expect(page.locator(".title .status")).to_have_text("SCHEDULED")
    ground.postgres.stop()
    try:
        expect(page.locator("#stale")).to_contain_text("shows data of")
        expect(page.locator("body.stale main")).to_contain_text("SCHEDULED")
        page.get_by_role("button", name="Cancel", exact=True).click()
        confirm(page)
        expect(page.locator("#notices .error")).to_be_visible()
        fresh = visitor.open("/ui/jobs")
        expect(fresh.locator("main h1")).to_be_visible()
    finally:
        ground.postgres.start()
    expect(page.locator("#stale")).to_be_hidden()
    expect(page.locator("body.stale")).to_have_count(0)
    expect(fresh.locator(f"#job-{job_id}")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Cancel", exact=True).click()
    confirm(page)
    expect(page.locator(".title .status")).to_have_text("CANCELLED")


def test_no_page_leaks_anything_while_postgres_is_unavailable(ground: Ground, console: Service) -> None:
    job_id = console.post(delay=3600)
    ground.postgres.stop()
    try:
        for path in (*PAGES, f"jobs/{job_id}", "jobs?q=abcdef", f"new?like={job_id}", "schedules/x"):
            reply = console.client.get(f"/ui/{path}", headers=HTML)
            assert (reply.status_code, "Retry-After" in reply.headers) in ((503, True), (200, False)), path
            assert reply.headers["Content-Type"].startswith("text/html")
            assert not [leak for leak in LEAKS if leak in reply.text], path
        problem = refused(console.client.get("/ui/jobs"), 503)
        assert problem["status"] == 503
    finally:
        ground.postgres.start()


def test_unknown_page_is_404_while_postgres_is_unavailable(ground: Ground, console: Service) -> None:
    ground.postgres.stop()
    try:
        for path in ("nope", "new?type=nope", "jobs/x"):
            refused(console.client.get(f"/ui/{path}"), 404)
            page = console.client.get(f"/ui/{path}", headers=HTML)
            assert (page.status_code, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8"), path
    finally:
        ground.postgres.start()


def test_stopped_service_is_said_so(ground: Ground, visitor: Visitor) -> None:
    visitor.expected += ["net::ERR", "htmx", "Failed to fetch"]
    page = visitor.open("/ui/jobs")
    ground.service.api.kill()
    expect(page.locator("#stale")).to_contain_text("can't be reached")
    expect(page.locator("body.stale main h1")).to_have_text("Jobs")
