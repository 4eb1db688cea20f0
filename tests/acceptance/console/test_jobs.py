"""Jobs in the console: posted by the form, watched, retried, filtered, searched, cancelled and deleted."""

import json
import re
import subprocess
from pathlib import Path
from uuid import uuid4

from playwright.sync_api import Page, expect

from tests.support.browser import Visitor, confirm
from tests.support.service import Service


def rows(page: Page) -> set[str]:
    """The ids of the jobs that the page lists."""
    return {str(row.get_attribute("id")).removeprefix("job-") for row in page.locator("tr[id^=job-]").all()}


def test_job_goes_from_the_form_to_completed_without_a_reload(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "go on"
    page = visitor.open("/ui/new?type=STEPS")
    page.get_by_label("files").fill(str(file))
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url(re.compile(r"/ui/jobs/[0-9a-f-]{36}$"))
    page.evaluate("window.mark = 'kept'")
    expect(page.locator(".title .status")).to_have_text("PROCESSING")
    expect(page.locator("#progress")).to_contain_text("step 1")
    expect(page.locator(".log")).to_contain_text("in step 1")
    file.touch()
    expect(page.locator(".title .status")).to_have_text("COMPLETED")
    expect(page.locator("#timeline")).to_contain_text("Ended: COMPLETED")
    assert page.evaluate("window.mark") == "kept"


def test_form_has_the_fields_of_the_schema_and_shows_errors_beside_them(console: Service, visitor: Visitor) -> None:
    visitor.expected.append("status of 422")
    page = visitor.open("/ui/new")
    page.get_by_label("Type", exact=True).select_option("PARCEL")
    page.wait_for_url("**/ui/new?type=PARCEL")
    page.get_by_label("weight").fill("31")
    page.get_by_label("size").select_option("large")
    page.get_by_role("button", name="Post job").click()
    for name in ("to", "weight"):
        field = page.locator(f"[name='/payload/{name}']")
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(page.locator(f".field:has([name='/payload/{name}']) .error")).to_be_visible()
    page.get_by_label("weight").fill("2.5")
    page.get_by_label("to *").fill("O'Hara & <sons>")
    page.get_by_label("express").select_option("true")
    page.get_by_label("address.city").fill("Å")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("tags").fill("red, blue")
    command = page.locator("#command").inner_text()
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url("**/ui/jobs/*-*")
    by_form = console.until(page.url.rpartition("/")[2], "COMPLETED")
    reply = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    by_command = console.until(json.loads(reply.stdout)["jobId"], "COMPLETED")
    for job in (by_form, by_command):
        assert job["tags"] == ["red", "blue"]
        sent = job["result"]["sent"]
        assert sent["to"] == "O'Hara & <sons>"
        assert (sent["weight"], sent["size"], sent["express"], sent["address"]["city"]) == (2.5, "large", True, "Å")


def test_failed_job_shows_attempts_log_and_traceback_and_is_retried(console: Service, visitor: Visitor) -> None:
    job_id = console.post("BROKEN", {"fails": 1})
    console.until(job_id, "FAILED")
    page = visitor.open(f"/ui/jobs/{job_id}")
    expect(page.locator(".title .status")).to_have_text("FAILED")
    expect(page.locator("#error")).to_contain_text("ReceiverUnknown")
    for text in ("attempt 1 starts", "the receiver has moved", "Traceback (most recent call last)"):
        expect(page.locator("details[id^=attempt-]")).to_contain_text(text)
    page.get_by_role("button", name="Retry", exact=True).click()
    expect(page.locator(".title .status")).to_have_text("COMPLETED")
    expect(page.locator("details[id^=attempt-]")).to_have_count(2)
    expect(page.get_by_role("button", name="Retry", exact=True)).to_have_count(0)
    assert console.job(job_id)["attempts"] == 2


def test_group_of_failures_is_retried_at_once(console: Service, visitor: Visitor) -> None:
    message = f"no house {uuid4().hex[:6]}"
    failed = [console.post("BROKEN", {"message": message}) for _ in range(3)]
    other = console.post("BROKEN", {"message": f"no street {uuid4().hex[:6]}"})
    for job_id in (*failed, other):
        console.until(job_id, "FAILED")
    page = visitor.open("/ui/failures")
    group = page.locator("tbody tr", has_text=message)
    expect(group).to_contain_text("ReceiverUnknown")
    expect(group.locator("[data-label=Jobs]")).to_have_text("3")
    group.locator("a.bad").click()
    page.wait_for_url("**/ui/jobs?*")
    assert rows(page) == set(failed)
    page.go_back()
    group.get_by_role("button", name="Retry all").click()
    expect(page.locator("#question")).to_contain_text("(3)")
    confirm(page)
    for job_id in failed:
        console.until(job_id, "COMPLETED")
    expect(group).to_have_count(0)
    assert console.job(other)["status"] == "FAILED"


def test_filters_are_in_the_address_and_the_back_button_undoes_them(console: Service, visitor: Visitor) -> None:
    tag = f"tag-{uuid4().hex[:6]}"
    failed = console.post("BROKEN", tags=[tag])
    done = console.post(tags=[tag, "é & ü"])
    console.until(failed, "FAILED")
    console.until(done, "COMPLETED")
    page = visitor.open("/ui/jobs")
    page.get_by_role("textbox", name="Tag").fill(tag)
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url(f"**tag={tag}*")
    assert rows(page) == {failed, done}
    page.get_by_role("navigation", name="Status").get_by_text("Failed").click()
    page.wait_for_url("**status=FAILED*")
    assert rows(page) == {failed}
    linked = visitor.open(page.url.removeprefix(console.url))
    assert rows(linked) == {failed}
    expect(linked.locator(".chip")).to_contain_text(tag)
    page.go_back()
    page.wait_for_url(lambda url: "status" not in url)
    assert rows(page) == {failed, done}
    page.locator(".chip", has_text=tag).click()
    page.wait_for_url(lambda url: tag not in url)
    page.locator("tbody .tag", has_text="é & ü").first.click()
    expect(page.locator(".chip")).to_contain_text("é & ü")
    assert rows(page) == {done}


def test_search_finds_a_job_by_its_end_and_a_type_and_a_tag(console: Service, visitor: Visitor) -> None:
    tag = f"tag-{uuid4().hex[:6]}"
    job_id = console.post(tags=[tag])
    page = visitor.open("/ui/")
    for text, url in (
        (job_id, f"**/ui/jobs/{job_id}"),
        (job_id[-10:], f"**/ui/jobs/{job_id}"),
        ("PARCEL", "**/ui/jobs?type=PARCEL"),
        (tag, f"**/ui/jobs?tag={tag}"),
    ):
        page.locator(".search input").fill(text)
        page.locator(".search input").press("Enter")
        page.wait_for_url(url)
    page.locator(".search input").fill("no such thing")
    page.locator(".search input").press("Enter")
    expect(page.locator(".alert")).to_contain_text("no such thing")


def test_older_jobs_are_a_page_away(console: Service, visitor: Visitor) -> None:
    tag = f"tag-{uuid4().hex[:6]}"
    posted = [console.post(delay=3600, tags=[tag]) for _ in range(5)]
    page = visitor.open(f"/ui/jobs?tag={tag}&limit=2")
    seen = rows(page)
    for start in (2, 4):
        page.get_by_role("link", name="Older").click()
        expect(page.locator(f"#job-{posted[-1 - start]}")).to_be_visible()
        seen |= rows(page)
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    assert seen == set(posted)


def test_ticked_jobs_are_cancelled_after_a_question(console: Service, visitor: Visitor) -> None:
    tag = f"tag-{uuid4().hex[:6]}"
    ids = [console.post(delay=3600, tags=[tag]) for _ in range(3)]
    page = visitor.open(f"/ui/jobs?tag={tag}")
    for job_id in ids[:2]:
        page.locator(f"#tick-{job_id}").check()
    page.locator("#ticked").get_by_role("button", name="Cancel").click()
    expect(page.locator("#question")).to_have_text("Cancel 2 jobs?")
    confirm(page, is_wanted=False)
    assert {console.job(job_id)["status"] for job_id in ids} == {"SCHEDULED"}
    page.locator("#ticked").get_by_role("button", name="Cancel").click()
    expect(page.locator("#question")).to_have_text("Cancel 2 jobs?")
    confirm(page)
    for job_id in ids[:2]:
        console.until(job_id, "CANCELLED")
        expect(page.locator(f"#job-{job_id} .status")).to_have_text("CANCELLED")
    assert console.job(ids[2])["status"] == "SCHEDULED"


def test_all_that_match_are_acted_on_after_a_question_with_their_number(console: Service, visitor: Visitor) -> None:
    tag = f"tag-{uuid4().hex[:6]}"
    ids = [console.post(delay=3600, tags=[tag]) for _ in range(3)]
    page = visitor.open(f"/ui/jobs?tag={tag}&limit=1")
    page.get_by_role("button", name="Cancel 3 jobs").click()
    expect(page.locator("#question")).to_have_text("Cancel 3 jobs that match the filter?")
    confirm(page, is_wanted=False)
    assert {console.job(job_id)["status"] for job_id in ids} == {"SCHEDULED"}
    page.get_by_role("button", name="Cancel 3 jobs").click()
    expect(page.locator("#question")).to_have_text("Cancel 3 jobs that match the filter?")
    confirm(page)
    for job_id in ids:
        console.until(job_id, "CANCELLED")
    page.get_by_role("button", name="Delete 3 jobs").click()
    expect(page.locator("#question")).to_have_text("Delete 3 jobs that match the filter?")
    confirm(page)
    expect(page.locator("main")).to_contain_text("No job matches")
    assert console.client.get(f"/jobs/{ids[0]}").status_code == 404


def test_copy_of_a_job_starts_with_its_payload_and_options(console: Service, visitor: Visitor) -> None:
    job_id = console.post("PARCEL", {"to": "Ann", "address": {"city": "Rome"}}, tags=["red"], timeout=77)
    page = visitor.open(f"/ui/jobs/{job_id}")
    page.get_by_role("link", name="Duplicate").click()
    payload = page.locator("[name='/payload']").input_value()
    assert json.loads(payload) == {"to": "Ann", "address": {"city": "Rome"}}
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url(re.compile(r"/ui/jobs/[0-9a-f-]{36}$"))
    copy = console.job(page.url.rpartition("/")[2])
    assert (copy["id"] != job_id, copy["payload"]["to"], copy["tags"], copy["timeout"]) == (True, "Ann", ["red"], 77)


def test_waiting_job_is_edited(console: Service, visitor: Visitor) -> None:
    job_id = console.post("PARCEL", {"to": "Ann"}, delay=3600, tags=["red"], timeout=77)
    page = visitor.open(f"/ui/jobs/{job_id}")
    page.get_by_text("Edit", exact=True).click()
    payload = page.locator("#edit [name='/payload']")
    assert json.loads(payload.input_value()) == {"to": "Ann"}
    page.locator("#edit [name='/timeout']").fill("-1")
    visitor.expected.append("status of 422")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#edit .field:has([name='/timeout']) .error")).to_be_visible()
    page.locator("#edit [name='/timeout']").fill("78")
    payload.fill('{"to": "Bob"}')
    page.locator("#edit [name='/retry/max']").fill("2")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#notices")).to_contain_text("Changed.")
    expect(page.locator("pre", has_text="Bob")).to_be_visible()
    job = console.job(job_id)
    assert (job["payload"]["to"], job["timeout"], job["tags"], job["maxAttempts"]) == ("Bob", 78, ["red"], 3)
    assert job["status"] == "SCHEDULED"
    console.client.post(f"/jobs/{job_id}/cancel")
    expect(page.locator("#edit")).to_have_count(0)


def test_form_has_the_options_of_workflows_and_limits(console: Service, visitor: Visitor) -> None:
    first = console.post(delay=3600)
    page = visitor.open("/ui/new")
    page.get_by_text("Options", exact=True).click()
    for label, value in (("rateLimit.key", "smtp"), ("rateLimit.limit", "5"), ("rateLimit.per", "60")):
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_label("dependsOn").fill(first)
    page.get_by_label("onDependencyFailure").select_option("run")
    page.get_by_label("uniqueKey").fill(uuid4().hex)
    page.get_by_label("onConflict").select_option("reject")
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url(re.compile(r"/ui/jobs/[0-9a-f-]{36}$"))
    expect(page.locator(".title .status")).to_have_text("BLOCKED")
    job = console.job(page.url.rpartition("/")[2])
    assert (job["dependsOn"], job["rateLimit"]) == ([first], {"key": "smtp", "limit": 5, "per": 60})
    expect(page.locator("main")).to_contain_text("5 starts in 1 min")
    page.get_by_role("link", name="Duplicate").click()
    page.get_by_label("uniqueKey").fill(uuid4().hex)
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url(re.compile(r"/ui/jobs/[0-9a-f-]{36}$"))
    copy = console.job(page.url.rpartition("/")[2])
    assert (copy["dependsOn"], copy["rateLimit"]) == (job["dependsOn"], job["rateLimit"])
