"""Pages that stay open: they show what others do, keep what a person has done, and say so when something is wrong."""

import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from playwright.sync_api import Page, Route, expect

from tests.support.browser import Visitor
from tests.support.service import Service


@pytest.fixture(autouse=True)
def _nothing_is_paused(console: Service) -> None:
    for name in ("high", "default", "low"):
        console.client.post(f"/queues/{name}/resume")


def stopped(visitor: Visitor, path: str) -> Page:
    """A page whose own clock stands still until a test moves it."""
    page = visitor.context().new_page()
    page.clock.install()
    page.goto(visitor.url + path)
    page.wait_for_load_state("networkidle")
    page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))
    return page


def test_pause_shows_up_for_others_within_three_seconds(console: Service, visitor: Visitor) -> None:
    for path in ("/ui/", "/ui/queues", "/ui/queues/low"):
        other = stopped(visitor, path)
        page = visitor.open("/ui/queues")
        row = page.locator("#queue-low")
        row.get_by_role("button", name="Pause").click()
        expect(row).to_contain_text("paused")
        other.clock.run_for(3000)
        expect(other.locator("#queue-low")).to_contain_text("paused")
        other.locator("#queue-low").get_by_role("button", name="Resume").click()
        expect(other.locator("#queue-low")).not_to_contain_text("paused")
        page.close()


def test_new_jobs_are_announced_and_not_inserted(console: Service, visitor: Visitor) -> None:
    tag = f"tag-{uuid4().hex[:6]}"
    first = console.post(delay=3600, tags=[tag])
    page = visitor.open(f"/ui/jobs?tag={tag}")
    page.locator(f"#tick-{first}").check()
    others = [console.post(delay=3600, tags=[tag]) for _ in range(2)]
    expect(page.get_by_role("link", name="2 new")).to_be_visible()
    expect(page.locator("tr[id^=job-]")).to_have_count(1)
    expect(page.locator(f"#tick-{first}")).to_be_checked()
    page.get_by_role("link", name="2 new").click()
    for job_id in others:
        expect(page.locator(f"#job-{job_id}")).to_be_visible()


def test_refresh_keeps_text_focus_ticks_and_what_is_open(console: Service, visitor: Visitor) -> None:
    job_id = console.post(delay=3600)
    page = visitor.open("/ui/jobs")
    page.locator(f"#tick-{job_id}").check()
    page.get_by_role("textbox", name="Tag").fill("half a wo")
    page.locator("#curl summary").click()
    page.get_by_role("textbox", name="Tag").focus()
    for _ in range(2):
        with page.expect_response(lambda reply: "/ui/jobs" in reply.url):
            pass
    expect(page.locator(f"#tick-{job_id}")).to_be_checked()
    expect(page.get_by_role("textbox", name="Tag")).to_have_value("half a wo")
    expect(page.get_by_role("textbox", name="Tag")).to_be_focused()
    expect(page.locator("#curl code")).to_be_visible()


def test_unchanged_page_is_not_sent_again(console: Service, visitor: Visitor) -> None:
    page = visitor.open("/ui/schedules")
    statuses = []
    for _ in range(3):
        with page.expect_response(lambda reply: reply.url.endswith(("/ui/schedules", "/ui/schedules?"))) as seen:
            pass
        statuses.append(seen.value.status)
    assert set(statuses) <= {200, 304}
    reply = console.client.get("/ui/schedules")
    again = console.client.get("/ui/schedules", headers={"If-None-Match": reply.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_hidden_tab_asks_for_nothing(visitor: Visitor) -> None:
    page = visitor.context().new_page()
    page.clock.install()
    page.add_init_script("Object.defineProperty(document, 'hidden', {get: () => !window.seen})")
    page.goto(f"{visitor.url}/ui/workers")
    page.wait_for_load_state("networkidle")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.clock.run_for(20_000)
    page.wait_for_load_state("networkidle")
    assert requests == []
    with page.expect_response(re.compile("/ui/workers")):
        page.evaluate("window.seen = true; document.dispatchEvent(new Event('visibilitychange'))")


def test_title_and_icon_show_failures(console: Service, visitor: Visitor) -> None:
    page = visitor.open("/ui/workers")
    console.until(console.post("BROKEN"), "FAILED")
    expect(page).to_have_title(re.compile(r"^\([1-9][0-9,]*\) "))
    assert "icon-alert" in str(page.locator("link[rel=icon]").get_attribute("href"))


def test_keys_go_to_pages_search_and_help(visitor: Visitor) -> None:
    page = visitor.open("/ui/")
    for letter, path in zip("jfqswo", ("jobs", "failures", "queues", "schedules", "workers", ""), strict=True):
        page.keyboard.press("g")
        page.keyboard.press(letter)
        page.wait_for_url(f"**/ui/{path}")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.locator(".search input")).to_be_focused()
    page.keyboard.type("gj")  # text, and no keys
    expect(page.locator(".search input")).to_have_value("gj")
    page.keyboard.press("Tab")
    page.keyboard.press("n")
    page.wait_for_url("**/ui/new")


def test_key_retries_the_job(console: Service, visitor: Visitor) -> None:
    job_id = console.post("BROKEN")
    console.until(job_id, "FAILED")
    page = visitor.open(f"/ui/jobs/{job_id}")
    expect(page.get_by_role("button", name="Retry", exact=True)).to_have_attribute("data-htmx-powered", "true")
    page.keyboard.press("r")
    console.until(job_id, "COMPLETED")


def test_theme_follows_the_system_until_it_is_switched(visitor: Visitor) -> None:
    page = visitor.open("/ui/", color_scheme="dark")
    shade = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(shade)
    page.get_by_role("button", name="Switch between light and dark").click()
    light = page.evaluate(shade)
    assert light != dark
    page.goto(f"{visitor.url}/ui/jobs")
    assert page.evaluate(shade) == light
    assert visitor.open("/ui/", color_scheme="light").evaluate(shade) == light


def test_page_causes_no_error_before_its_scripts_are_loaded(console: Service, visitor: Visitor) -> None:
    page = visitor.context().new_page()
    held: list[Route] = []
    page.route("**/htmx.min.js", lambda route: held.append(route))
    page.goto(f"{console.url}/ui/", wait_until="commit")
    expect(page.locator("h1")).to_be_visible()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # which refreshes the page
    held[0].continue_()
    page.wait_for_function("'htmx' in window")
