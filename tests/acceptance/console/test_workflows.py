"""Workflows and payloads in the console: a job's graph, the jobs behind its links, and the search for payloads."""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.console.test_jobs import rows
from tests.support.browser import Visitor, confirm, inaccessible, too_wide
from tests.support.service import Service


def depend(service: Service, job_id: str, dependencies: Sequence[str]) -> None:
    """Let the job depend on these, which have ended as far as it is concerned."""
    for one in dependencies:
        service.sql(f"INSERT INTO dependencies VALUES ('{one}', '{job_id}', false)")
        service.sql(f"UPDATE jobs SET has_dependents = true WHERE id = '{one}'")
    service.sql(f"UPDATE jobs SET depends_on = '{{{','.join(dependencies)}}}' WHERE id = '{job_id}'")


def later(service: Service, number: int, **more: Any) -> list[str]:
    return [service.post(delay=3600, **more) for _ in range(number)]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_graph_links_to_the_jobs_around(console: Service, visitor: Visitor, theme: Any) -> None:
    [first], up, [job_id], down = (later(console, number) for number in (1, 11, 1, 3))
    console.client.post(f"/jobs/{first}/cancel")
    depend(console, job_id, [first, *up])
    for one in down:
        depend(console, one, [job_id])
    console.sql(f"DELETE FROM jobs WHERE id = '{up[0]}'")
    page = visitor.context(color_scheme=theme).new_page()
    page.goto(f"{console.url}/ui/jobs/{job_id}")
    graph = page.get_by_role("group", name="Workflow of this job")
    names = [str(one.get_attribute("aria-label")) for one in graph.locator("a").all()]
    assert names == [
        f"Depends on: TEST_JOB {first[-8:]} CANCELLED",
        *(f"Depends on: TEST_JOB {one[-8:]} SCHEDULED" for one in up[1:9]),
        f"This job: TEST_JOB {job_id[-8:]} SCHEDULED",
        *(f"Dependent: TEST_JOB {one[-8:]} SCHEDULED" for one in down),
    ]
    expect(graph).to_contain_text(f"deleted {up[0][-8:]}")
    expect(graph).to_contain_text("and 2 more")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert too_wide(page) == []
        assert inaccessible(page) == []
    link = graph.get_by_role("link", name=f"Dependent: TEST_JOB {down[1][-8:]}")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/ui/jobs/{down[1]}")
    page.get_by_role("link", name=f"Depends on: TEST_JOB {job_id[-8:]}").click()
    page.wait_for_url(f"**/ui/jobs/{job_id}")


def test_many_dependents_are_behind_one_link(console: Service, visitor: Visitor) -> None:
    [job_id], down = later(console, 1), later(console, 13)
    for one in down:
        depend(console, one, [job_id])
    page = visitor.open(f"/ui/jobs/{job_id}")
    page.get_by_role("link", name="and 3 more").click()
    page.wait_for_url(f"**/ui/jobs?dependsOn={job_id}")
    assert rows(page) == set(down)
    expect(page.locator(".chip")).to_contain_text(f"dependsOn: {job_id}")
    expect(page.get_by_role("navigation", name="Status").get_by_text("Scheduled")).to_contain_text("13")
    page.get_by_role("button", name="Cancel 13 jobs").click()
    expect(page.locator("#question")).to_have_text("Cancel 13 jobs that match the filter?")
    confirm(page)
    expect(page.locator("#notices")).to_contain_text("13 jobs cancelled")
    assert console.job(job_id)["status"] == "SCHEDULED"


def test_job_outside_of_workflows_has_no_graph(console: Service) -> None:
    [job_id] = later(console, 1)
    assert "Workflow" not in console.client.get(f"/ui/jobs/{job_id}").text


def test_graph_is_refreshed(console: Service, visitor: Visitor) -> None:
    [first], [second] = later(console, 1), later(console, 1)
    depend(console, second, [first])
    page = visitor.open(f"/ui/jobs/{second}")
    console.client.post(f"/jobs/{first}/cancel")
    expect(page.get_by_role("link", name=f"Depends on: TEST_JOB {first[-8:]} CANCELLED")).to_be_visible()


def test_blocked_jobs_have_a_tab_a_count_and_a_colour(console: Service, visitor: Visitor) -> None:
    tag = f"tag-{uuid4().hex[:6]}"
    [first], [second] = later(console, 1), later(console, 1, tags=[tag])
    depend(console, second, [first])
    console.sql(f"UPDATE jobs SET status = 'BLOCKED', open_dependencies = 1 WHERE id = '{second}'")
    console.sql(f"UPDATE dependencies SET is_open = true WHERE dependent_id = '{second}'")
    page = visitor.open(f"/ui/jobs?tag={tag}")
    tab = page.get_by_role("navigation", name="Status").get_by_role("link", name="Blocked 1")
    tab.click()
    page.wait_for_url("**status=BLOCKED*")
    assert rows(page) == {second}
    row = page.locator(f"#job-{second}")
    expect(row).to_contain_text("waits for 1 job")
    colour = "one => getComputedStyle(one).color"
    assert row.locator(".status").evaluate(colour) != page.locator(".muted").first.evaluate(colour)
    page.goto(f"{console.url}/ui/queues")
    expect(page.locator("#queue-default td[data-label=Blocked]")).to_have_text("1")
    page.goto(f"{console.url}/ui/jobs/{second}")
    expect(page.locator("#timeline")).to_contain_text("is due once its dependencies have ended")
    page.get_by_role("button", name="Cancel").click()
    confirm(page)
    expect(page.locator(".title .status")).to_have_text("CANCELLED")


def test_search_box_finds_payloads(console: Service, visitor: Visitor) -> None:
    text = f'é "{uuid4().hex[:6]}" & <b>'
    job_id = console.post(payload={"result": {"to": text}}, delay=3600)
    page = visitor.open("/ui/")
    page.locator(".search input").fill('payload: {"result": {"to": ' + json.dumps(text) + "}}")
    page.locator(".search input").press("Enter")
    page.wait_for_url("**/ui/jobs?payload=*")
    assert rows(page) == {job_id}
    expect(page.locator(".chip")).to_contain_text("payload: ")
    expect(page.locator("main")).to_contain_text("Add another filter to act on all jobs with this payload.")
    page.get_by_label("Queue").select_option("default")
    page.wait_for_url("**queue=default*")
    assert rows(page) == {job_id}
    expect(page.get_by_role("button", name="Cancel 1 job")).to_be_visible()
    page.locator(".chip", has_text="payload").click()
    page.wait_for_url(lambda url: "payload" not in url)
    assert job_id in rows(page)
    visitor.expected.append("status of 422")
    page.locator(".search input").fill("payload:{to: 1}")
    page.locator(".search input").press("Enter")
    expect(page.locator("main .error")).to_contain_text("payload is not JSON")


SMALL_PARTS = """
from jobsvc.jobs import bulk, payload_search
bulk.MAX_WALK = 2
bulk.MAX_ROWS = payload_search.MAX_ROWS = 1
"""


def test_search_goes_on_by_pages_and_an_action_to_its_end(browser: Browser, apart: dict[str, str]) -> None:
    service = Service(apart, tune=SMALL_PARTS)
    visitor = Visitor(browser, service.url)
    try:
        ids = [service.post(payload={"steps": 1 + n % 2}, queue="high", delay=3600) for n in range(7)]
        chosen = f"queue=high&payload={quote(json.dumps({'steps': 1}))}"
        page = visitor.open(f"/ui/jobs?{chosen}")
        assert rows(page) == {ids[6]}
        page.get_by_role("link", name="Older").click()
        page.wait_for_url("**cursor=*")
        assert rows(page) == set()
        expect(page.locator(".empty")).to_contain_text("“Older” goes on with the search")
        page.goto(f"{service.url}/ui/jobs?{chosen}&status=SCHEDULED")
        page.get_by_role("button", name="Cancel").click()
        confirm(page)
        expect(page.locator("#notices")).to_contain_text("4 jobs cancelled")
        assert [service.job(job_id)["status"] for job_id in ids] == ["CANCELLED", "SCHEDULED"] * 3 + ["CANCELLED"]
    finally:
        visitor.close()
        service.close()
    visitor.check()
