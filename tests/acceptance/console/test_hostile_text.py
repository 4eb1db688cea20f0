"""Hostile text on the pages of the console: it is text everywhere.

The class of scripts: text that a page inserts as HTML, as a part of an attribute, of a script or of a request that htmx
sends. Its members: the type, payload (keys too), tags, unique and concurrency key, progress message, log lines, result
(keys too), error type, message and traceback; a handler's description and the names, titles, defaults, descriptions and
choices of its schema; a schedule's job; the answer of a webhook's receiver; name, host and state of a worker in Redis;
each query parameter, its name too, and each name in a path.
"""

from typing import Any
from urllib.parse import quote

import pytest

from tests.acceptance.console.pages import PAGES, assert_no_element_of_a_job
from tests.support.browser import Visitor
from tests.support.handlers.console import SCRIPTS
from tests.support.service import Service


@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_is_shown_as_text(read: Any, name: str) -> None:
    page = read(name)
    assert_no_element_of_a_job(page)
    if name not in ("unknown page", "unknown job", "ticks", "new job", "type of a model", "new job of a model"):
        texts = page.locator("body").inner_text() + "".join(page.locator("textarea").all_inner_texts())
        assert "pwned()" in texts or name in ("no jobs", "older jobs", "queues", "webhooks"), texts
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    events = "one => ['mouseover', 'focus', 'load', 'error'].forEach(name => one.dispatchEvent(new Event(name)))"
    page.locator("main *").evaluate_all(f"all => all.forEach({events})")
    assert_no_element_of_a_job(page)


@pytest.mark.parametrize("name", ["overview", "jobs", "running job", "failures", "workers", "schedule"])
def test_hostile_text_is_shown_as_text_after_a_refresh(read: Any, name: str) -> None:
    page = read(name)
    for _ in range(2):
        with page.expect_response(lambda reply: "/ui/" in reply.url and "/static/" not in reply.url):
            pass
    assert_no_element_of_a_job(page)


def test_hostile_payload_is_copied_by_the_form(console: Service, read: Any, ids: dict[str, str]) -> None:
    page = read("copy of a job")
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url("**/ui/jobs/*-*")
    copy = console.job(page.url.rpartition("/")[2])
    assert copy["payload"] == console.job(ids["failed"])["payload"]
    assert_no_element_of_a_job(page)


@pytest.mark.parametrize(
    "path",
    [
        *("jobs?q={}", "jobs?type={}", "jobs?queue={}", "jobs?tag={}", "jobs?errorType={}", "jobs?error={}"),
        *("jobs?status={}", "jobs?cursor={}", "jobs?top={}", "jobs?limit={}", "jobs?createdAfter={}", "jobs?{}=1"),
        *("new?type={}", "new?like={}", "webhooks?cursor={}", "ticks?/cron={}", "ticks?/cron=@daily&/timezone={}"),
        *("jobs/{}", "queues/{}", "types/{}", "schedules/{}", "{}", "static/{}", "workers?{}", "?x={}"),
    ],
)
def test_address_never_runs_as_a_script(console: Service, visitor: Visitor, path: str) -> None:
    visitor.expected.append("status of 4[02][0-9]")
    page = visitor.context().new_page()
    for text in (SCRIPTS[:60], '"><img src=x onerror=pwned()>', "javascript:pwned()//", "A" * 4000):
        reply = page.goto(f"{console.url}/ui/{path.format(quote(text, safe=''))}")
        assert reply is not None
        assert reply.status < 500
        assert_no_element_of_a_job(page)
