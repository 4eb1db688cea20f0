"""The console with half a million jobs in the table: pages work, numbers are bounded, and so is what a page reads."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from bench import console_data
from tests.support.browser import Visitor, confirm
from tests.support.service import Service, eventually

NUMBER = 500_000

MOST_READ, MOST_SEARCHED = 120_000, 200_000
"""Rows and index entries that a page may read: bounded counts of each status; with a search among 100,000 ids."""

PAGES = ("", "jobs", "jobs?status=COMPLETED", "jobs?status=FAILED", "jobs?status=PENDING", "jobs?tag=rare",
         "jobs?type=CHARGE_CARD", "jobs?queue=low", "jobs?errorType=CardDeclined",
         "jobs?payload={}", 'jobs?payload={"n":0}&status=FAILED', "jobs?q=ffffffff0000", "failures",
         "queues", "queues/low", "types/CHARGE_CARD", "workers", "schedules", "webhooks", "new")  # fmt: skip

READ = """
SELECT (SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_user_tables)
     + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes)
"""
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
ALIVE = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query <> ''"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def console(apart: dict[str, str]) -> Iterator[Service]:
    """A service without a worker, over half a million jobs. Its own checks are rare, so that they read little."""
    service = Service({**apart, "JOBSVC_SWEEP_SECONDS": "60"})

    def execute(statement: str, **parameters: int) -> None:
        service.sql(statement % parameters if parameters else statement)

    console_data.fill(execute, NUMBER)
    yield service
    service.close()


def rows_read(console: Service, path: str) -> int:
    """Return how many rows and index entries the service reads for a page.

    A connection reports what it has read when it is closed, so all are closed before and after.
    """
    before = settled(console)
    reply = console.client.get(f"/ui/{path}", headers={"Accept": "text/html"}, follow_redirects=True)
    assert reply.status_code == 200, reply.text
    return settled(console) - before


def settled(console: Service) -> int:
    console.sql(CUT)
    console.sql("SELECT pg_stat_force_next_flush()")
    eventually(lambda: console.client.get("/readyz").json()["postgres"] == "up")
    console.sql(CUT)
    return int(console.sql(READ)[0][0])


@pytest.mark.parametrize("path", PAGES)
def test_page_reads_a_bounded_part_of_the_table(console: Service, path: str) -> None:
    assert rows_read(console, path) < (MOST_SEARCHED if "?q=" in path else MOST_READ)


def test_counts_stop_and_say_so(console: Service, visitor: Visitor) -> None:
    page = visitor.open("/ui/jobs")
    tabs = page.get_by_role("navigation", name="Status")
    for name, text in (("Completed", "?"), ("Failed", "10,000+"), ("Pending", "10,000+"), ("Scheduled", "500")):
        expect(tabs.get_by_role("link", name=name)).to_contain_text(text)
    page.goto(f"{console.url}/ui/jobs?status=FAILED")
    page.get_by_role("button", name="Retry 10,000+ jobs").click()
    expect(page.locator("#question")).to_contain_text("10,000+ jobs")
    confirm(page, is_wanted=False)
    page.goto(f"{console.url}/ui/failures")
    expect(page.locator("main")).to_contain_text("newest 10,000")


def test_old_jobs_are_reached(console: Service, visitor: Visitor) -> None:
    page = visitor.open("/ui/jobs?limit=200")
    for _ in range(3):
        first = page.locator("tr[id^=job-]").first.get_attribute("id")
        page.get_by_role("link", name="Older").click()
        expect(page.locator(f"#{first}")).to_have_count(0)
    [[middle, oldest]] = console.sql(
        "SELECT (SELECT id::text FROM jobs ORDER BY id OFFSET 6 LIMIT 1), (SELECT min(id::text) FROM jobs)"
    )
    page.goto(f"{console.url}/ui/jobs?cursor={middle}")
    expect(page.locator("tr[id^=job-]")).to_have_count(6)
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    page.locator(f"#job-{oldest} a.id").click()
    expect(page.locator("main")).to_contain_text(oldest)


def test_search_finds_new_jobs_and_says_where_it_looked(console: Service, visitor: Visitor) -> None:
    [[new, old]] = console.sql(
        "SELECT (SELECT id::text FROM jobs ORDER BY id DESC OFFSET 99000 LIMIT 1),"
        " (SELECT id::text FROM jobs ORDER BY id LIMIT 1)"
    )
    page = visitor.open(f"/ui/jobs?q={new[-12:]}")
    expect(page).to_have_url(f"{console.url}/ui/jobs/{new}")
    page.goto(f"{console.url}/ui/jobs?q={old[-12:]}")
    expect(page.locator(".alert")).to_contain_text("newest 100,000")
    page.goto(f"{console.url}/ui/jobs?q={old}")
    expect(page).to_have_url(f"{console.url}/ui/jobs/{old}")
