"""A schedule in the console, from its form to its end."""

from playwright.sync_api import expect

from tests.support.browser import Visitor, confirm
from tests.support.service import Service


def test_schedule_is_made_edited_run_and_deleted(console: Service, visitor: Visitor) -> None:
    visitor.expected.append("status of 422")
    page = visitor.open("/ui/schedules")
    page.get_by_label("Name").fill("nightly")
    page.get_by_label("Cron expression").fill("61 * * * *")
    page.get_by_label("Cron expression").press("Tab")
    expect(page.locator("#ticks .error")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Cron expression")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Cron expression").fill("30 3 * * 1-5")
    page.get_by_label("Time zone").fill("Europe/Paris")
    expect(page.locator("#ticks")).to_contain_text("at 03:30 on Monday to Friday")
    expect(page.locator("#ticks li")).to_have_count(5)
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/ui/schedules/nightly")
    assert console.client.get("/schedules").json()["schedules"][0]["cron"] == "30 3 * * 1-5"
    page.get_by_role("button", name="Run now").click()
    expect(page.locator("#notices")).to_contain_text("Job posted.")
    page.get_by_role("button", name="Switch off").click()
    expect(page.locator("main")).to_contain_text("off")
    page.get_by_role("button", name="Delete").click()
    confirm(page)
    page.wait_for_url("**/ui/schedules")
    assert console.client.get("/schedules").json()["schedules"] == []
