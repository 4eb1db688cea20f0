"""Every page of the console, full of hostile text, in both themes and at three widths."""

from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import expect

from jobsvc.ui.console import init_app
from tests.acceptance.console.pages import PAGES, assert_no_element_of_a_job
from tests.support.browser import Visitor, inaccessible, too_wide
from tests.support.service import Service

WHOLE = {name: path for name, path in PAGES.items() if name != "ticks"}
"""Those that are whole documents."""

WIDTHS = (1280, 768, 390)


def test_each_page_is_in_the_list() -> None:
    app = Flask("pages")
    init_app(app)
    urls = app.url_map.bind("localhost")
    visited = {urls.match(f"/ui/{path.partition('?')[0]}", "GET")[0] for path in PAGES.values()}
    served = {rule.endpoint for rule in app.url_map.iter_rules() if rule.endpoint.startswith("ui.")}
    assert served - {"ui.static"} == visited


@pytest.mark.parametrize("name", WHOLE)
def test_page_has_a_heading_is_accessible_and_no_wider_than_its_window(read: Any, name: str) -> None:
    page = read(name)
    assert page.locator("h1").count() == 1
    heading = page.locator("h1").inner_text()
    assert heading
    assert f"{heading} · jobsvc" in page.title()
    assert page.locator("#curl code, #command").first.text_content()
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert too_wide(page) == [], width
    page.emulate_media(color_scheme="light")
    assert inaccessible(page) == []  # at the narrowest
    page.set_viewport_size({"width": WIDTHS[0], "height": 800})
    page.emulate_media(color_scheme="dark")
    assert inaccessible(page) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jobs", "pwned()"),
        ("older jobs", "completed"),
        ("failed job", "pwned()"),
        ("completed job", "pwned()"),
        ("failures", "pwned()"),
        ("webhooks", "job.failed"),
    ],
)
def test_page_is_read_without_scripts(
    console: Service, visitor: Visitor, ids: dict[str, str], name: str, text: str
) -> None:
    page = visitor.open(f"/ui/{PAGES[name].format(**ids)}", java_script_enabled=False)
    expect(page.locator("main h1")).to_be_visible()
    assert text.lower() in page.locator("main").inner_text().lower()
    assert_no_element_of_a_job(page)


def test_filter_and_older_jobs_work_without_scripts(console: Service, visitor: Visitor, ids: dict[str, str]) -> None:
    page = visitor.open("/ui/jobs?limit=1", java_script_enabled=False)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("tr[id^=job-]")).to_have_count(1)
    page.get_by_role("textbox", name="Tag").fill("w" * 100)
    page.get_by_role("button", name="Filter").click()
    expect(page.locator(".chip")).to_have_count(1)
    page.locator("tr[id^=job-] a.id").first.click()
    for text in ("Payload", "Attempts", "Created"):
        expect(page.locator("main")).to_contain_text(text)
