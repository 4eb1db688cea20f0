"""The dashboard in a browser: what jobs brought along is text on every page, and the buttons do what they say.

The class of scripts: a field that a page inserts as HTML or as a part of a script. Its members: result (keys too),
error type, message and traceback, description, metadata, origin, status, dependencies' ids, worker names, call strings,
queue names (as text, in links, in the page's own script, in attributes), registry, order and page out of the path.

The class of buttons: what changes RQ alone, while Postgres is the truth. Its members: Requeue on a job's page and in a
list, Requeue All, Delete on a job's page and in a list, Empty and Compact; each pressed twice, and on jobs of others.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from rq import Queue, Worker
from rq.job import Job
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
)
from rq.results import Result
from rq.serializers import JSONSerializer

from tests.support.browser import chromium
from tests.support.http import refused
from tests.support.service import Service, eventually, page_server

MARK = "<b data-from=job>"
SCRIPTS = MARK + (
    "<img src=x onerror=pwned()><script>pwned()</script></script><script>pwned()</script>'\"><svg onload=pwned()>"
    "</pre></p></td></textarea></title><iframe srcdoc='<script>parent.pwned()</script>'></iframe><%= pwned() %>"
    "<% pwned() %><%- pwned() %>{{ pwned() }}${pwned()}<a href='javascript:pwned()' autofocus onfocus=pwned()>x</a>"
    "\\');pwned();//\\\u2028\n');pwned();//`+pwned()+`&lt;img src=x onerror=pwned()&gt;&#60;script>--><!--"
)
QUEUE = "jobsvc.q'+pwned()+'<img src=x onerror=pwned()>\\"  # without a slash, which a path can't have
REGISTRIES = ("queued", "scheduled", "deferred", "started", "finished", "failed", "canceled")
WATCH = """
window.violations = [];
window.pwned = function() { window.wasPwned = true; };
document.addEventListener('securitypolicyviolation', e => window.violations.push(e.violatedDirective + ' ' + e.sample));
"""


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    service = Service({**apart, "JOBSVC_HANDLERS": "tests.support.handlers.dashboard"})
    service.worker()
    yield service
    service.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test if a script of a job ran, was refused by the policy, or the page's own one failed."""
    page = browser.new_page()
    noticed: list[str] = []
    page.on("dialog", lambda dialog: (noticed.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: noticed.append(str(error)))
    page.add_init_script(WATCH)
    page.on("framenavigated", lambda frame: noticed.append(frame.url) if frame != page.main_frame else None)
    yield page
    assert noticed == []
    page.close()


def visit(page: Page, url: str, rendered: str) -> str:
    """Open a page of the dashboard, wait until its script has filled it, and return its text."""
    page.goto(url)
    page.locator(rendered).first.wait_for()
    assert page.evaluate("[window.wasPwned || false, window.violations]") == [False, []]
    assert page.locator("[data-from=job], iframe").count() == 0
    return page.locator("body").inner_text()


@pytest.fixture(scope="module")
def page_of_scripts() -> Iterator[str]:
    """The URL of a server that answers with scripts."""
    with page_server(SCRIPTS) as url:
        yield url


@pytest.fixture(scope="module")
def theirs(service: Service) -> list[str]:
    """Jobs of another RQ application, in each registry of a queue of theirs, all that RQ keeps of them a script."""
    connection = service.redis()
    queue = Queue(QUEUE, connection=connection, serializer=JSONSerializer)
    ids: list[str] = []
    registries: list[Any] = [None, ScheduledJobRegistry, DeferredJobRegistry, FinishedJobRegistry, FailedJobRegistry]
    for kind in [*registries, CanceledJobRegistry]:
        job = Job.create(SCRIPTS, args=[SCRIPTS], description=SCRIPTS, meta={SCRIPTS: SCRIPTS}, origin=QUEUE,
                         connection=connection, serializer=JSONSerializer)  # fmt: skip
        job.save()
        connection.hset(job.key, mapping={"status": "failed" if kind is FailedJobRegistry else "queued"})
        ids.append(job.id)
        if kind is None:
            queue.push_job_id(job.id)
            continue
        connection.zadd(kind(QUEUE, connection=connection).key, {job.id: 9e9})
        if kind is FailedJobRegistry:
            Result.create_failure(job, 3600, SCRIPTS, worker_name=SCRIPTS)
        if kind is FinishedJobRegistry:
            Result.create(job, Result.Type.SUCCESSFUL, 3600, return_value={SCRIPTS: SCRIPTS}, worker_name=SCRIPTS)
    connection.sadd(Queue.redis_queues_keys, queue.key)
    connection.zadd(f"rq:wip:{QUEUE}", {f"{ids[0]}:x": 9e9})
    connection.hset(f"rq:job:{ids[0]}", "dependency_ids", json.dumps([f"rq:job:{ids[1]}"]))
    worker = Worker(
        [queue], name="w<b/data-from><script>pwned()</script>", connection=connection, serializer=JSONSerializer
    )
    worker.register_birth()
    connection.hset(worker.key, mapping={"state": "busy", "version": SCRIPTS, "python_version": SCRIPTS})
    return ids


def test_text_of_a_job_never_runs_as_a_script(
    service: Service, page: Page, theirs: list[str], page_of_scripts: str
) -> None:
    text = SCRIPTS.replace("\u2028", "")
    brought = service.post("BRING", {"text": text}, tags=[text[:40]], uniqueKey=text[:40])
    failed = service.post("BRING", {"text": text, "fails": 9})
    fetched = service.post("HTTP_REQUEST", {"url": page_of_scripts})
    for job_id in (brought, fetched):
        service.until(job_id, "COMPLETED")
    service.until(failed, "FAILED")
    eventually(lambda: service.rq_places(failed) == ["failed"] and service.rq_places(fetched) == ["finished"])
    for job_id in (brought, failed, fetched, *theirs):
        shown = visit(page, f"{service.url}/rq/0/view/job/{job_id}", "#job-data p")
        assert MARK in shown, shown
    for path in ("", "0/", "0/view", "0/view/queues"):
        assert "<img src=x" in visit(page, f"{service.url}/rq/{path}", "[data-role=queue]")
    for name in ("jobsvc.default", quote(QUEUE, safe="")):
        for registry in REGISTRIES:
            for order in ("asc", "dsc"):
                url = f"{service.url}/rq/0/view/jobs/{name}/{registry}/8/{order}/1"
                shown = visit(page, url, "#page-selection li")
                assert (MARK in shown) == (name != "jobsvc.default" or registry == "failed"), (name, registry)
    assert "<script>pwned()</script>" in visit(page, f"{service.url}/rq/0/view/workers", "[data-role=worker]")


def test_name_in_a_path_never_runs_as_a_script(service: Service, page: Page) -> None:
    odd = quote(f"{QUEUE}2", safe="")
    for path in (
        f"jobs/{odd}/queued/8/asc/1",
        f"jobs/jobsvc.default/{odd}/8/asc/1",
        f"jobs/jobsvc.default/queued/8/{odd}/1",
    ):
        reply = page.goto(f"{service.url}/rq/0/view/{path}")
        assert reply is not None
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
        assert not page.evaluate("window.wasPwned")


def test_api_page_shows_a_result_as_text(service: Service, page: Page) -> None:
    job_id = service.post("BRING", {"text": MARK + "<img src=x onerror=pwned()>"})
    service.until(job_id, "COMPLETED")
    page.goto(f"{service.url}/docs")
    page.locator("#operations-Jobs-get_job .opblock-summary-control").click()
    page.locator("#operations-Jobs-get_job input").first.fill(job_id)
    page.locator("#operations-Jobs-get_job button.execute").click()
    page.locator("#operations-Jobs-get_job .live-responses-table", has_text="onerror=pwned()").wait_for()
    assert page.evaluate("[window.wasPwned || false, window.violations]") == [False, []]
    assert page.locator("[data-from=job]").count() == 0


def test_every_page_has_a_strict_policy(service: Service) -> None:
    nonces = set()
    for path in ("/rq/", "/rq/0/view/jobs", "/rq/0/view/workers", "/docs", "/rq/"):
        reply = service.client.get(path)
        policy = dict(part.split(" ", 1) for part in reply.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in policy["script-src"]
        nonces.add(policy["script-src"])
        assert reply.headers["X-Frame-Options"] == "DENY"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Referrer-Policy"] == "same-origin"
        assert "127.0.0.1" not in reply.text  # the address of Redis
    assert len(nonces) == 5, "a nonce came twice"
    for path in ("/nope", "/rq/nope", "/docs/nope", "/healthz", "/jobs", "/metrics", "/rq/0/data/queues.json"):
        reply = service.client.get(path)
        assert "text/html" not in reply.headers["Content-Type"]
        assert reply.headers["Cache-Control"] == "no-store"
        assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    tagged = service.client.get(f"/jobs/{service.post(delay=3600)}")
    assert tagged.headers["Cache-Control"] == "private, no-cache"


def test_other_sites_may_link_to_pages_but_not_frame_them(service: Service, page: Page) -> None:
    links = f"<a href='{service.url}/rq/'>go</a><iframe src='{service.url}/rq/'></iframe>"
    with page_server(links, "127.0.0.2") as url:
        browser_page = page.context.browser.new_page()  # type: ignore[union-attr]
        browser_page.goto(url, wait_until="networkidle")
        [frame] = browser_page.frames[1:]
        assert frame.locator("#queues").count() == 0
        browser_page.locator("a").click()
        browser_page.locator("[data-role=queue]").first.wait_for()
        browser_page.close()


def failed_jobs(service: Service, number: int, fails: int = 1) -> list[str]:
    """Jobs that FAILED, and of which RQ knows it too; they fail the first `fails` attempts."""
    ids = [service.post("BRING", {"text": "sad", "fails": fails}) for _ in range(number)]
    for job_id in ids:
        service.until(job_id, "FAILED")
        eventually(lambda job_id=job_id: service.rq_places(job_id) == ["failed"])
    return ids


def test_requeue_button_retries_the_job_or_says_why_not(service: Service, page: Page) -> None:
    [job_id] = failed_jobs(service, 1)
    visit(page, f"{service.url}/rq/0/view/job/{job_id}", "#job-data p")
    page.locator("#requeue-job-btn").click()
    assert service.until(job_id, "COMPLETED")["attempts"] == 2
    page.locator("#job-data", has_text="finished").wait_for()  # by its polling
    assert not page.locator("#requeue-job-btn").is_visible()
    page.locator("#requeue-job-btn").evaluate("button => button.click()")
    page.locator("[data-role=refusal]", has_text="the job was COMPLETED").wait_for()
    page.locator("#delete-job-btn").click()
    page.locator("#confirmation-modal-yes").click()
    eventually(lambda: service.client.get(f"/jobs/{job_id}").status_code == 404)
    page.wait_for_url("**/rq/", wait_until="commit")  # where /view/queues redirects to


def test_buttons_of_a_list_act_on_its_jobs(service: Service, page: Page) -> None:
    one, *others = failed_jobs(service, 3)
    waiting = service.post(delay=3600)
    url = f"{service.url}/rq/0/view/jobs/jobsvc.default/failed/200/dsc/1"
    visit(page, url, f"[data-job-id='{one}']")
    page.locator(f"[data-job-id='{one}'] [data-role=requeue-job-btn]").click()
    service.until(one, "COMPLETED")
    page.locator("#requeue-all-btn").click()
    page.locator("#confirmation-modal-yes").click()
    for job_id in others:
        service.until(job_id, "COMPLETED")
    assert page.locator("#empty-btn, #compact-btn").count() == 0
    eventually(lambda: service.rq_places(waiting) == ["scheduled"])
    visit(page, f"{service.url}/rq/0/view/jobs/jobsvc.default/scheduled/200/asc/1", f"[data-job-id='{waiting}']")
    page.locator(f"[data-job-id='{waiting}'] [data-role=delete-job-btn]").click()
    page.locator("#confirmation-modal-yes").click()
    page.locator("[data-role=refusal]", has_text="the job was SCHEDULED").wait_for()
    assert page.locator("#empty-btn, #compact-btn").count() == 0


def test_list_shows_new_jobs_by_polling(service: Service, page: Page) -> None:
    visit(page, f"{service.url}/rq/0/view/jobs/jobsvc.default/scheduled/200/dsc/1", "#page-selection li")
    job_id = service.post(delay=7200)
    page.locator(f"[data-job-id='{job_id}']").wait_for()


def test_second_click_is_409_or_404_and_changes_nothing(service: Service) -> None:
    [job_id] = failed_jobs(service, 1, fails=2)
    press = service.client.post
    assert press(f"/rq/job/{job_id}/requeue").json() == {"status": "OK"}
    service.until(job_id, "FAILED")
    eventually(lambda: service.rq_places(job_id) == ["failed"])
    assert press("/rq/requeue/jobsvc.default").json()["count"] >= 1
    service.until(job_id, "COMPLETED")
    before = service.job(job_id)
    refused(press(f"/rq/job/{job_id}/requeue"), 409)
    assert service.job(job_id) == before
    assert press(f"/rq/job/{job_id}/delete").json() == {"status": "OK"}
    for _ in range(2):
        assert press(f"/rq/job/{job_id}/delete").status_code in (404, 409)
        assert press(f"/rq/job/{job_id}/requeue").status_code in (404, 409)
    waiting = service.post(delay=3600)
    for _ in range(2):
        refused(press(f"/rq/job/{waiting}/delete"), 409)
        refused(press(f"/rq/job/{waiting}/requeue"), 409)
        for registry in REGISTRIES:
            refused(press(f"/rq/queue/jobsvc.default/{registry}/empty"), 409)
        refused(press("/rq/queue/jobsvc.default/compact"), 409)
    assert service.job(waiting)["status"] == "SCHEDULED"
    eventually(lambda: service.rq_places(waiting) == ["scheduled"])


def test_jobs_of_other_applications_are_refused(service: Service, theirs: list[str]) -> None:
    for job_id in theirs:
        for button in ("requeue", "delete"):
            assert "another application" in refused(service.client.post(f"/rq/job/{job_id}/{button}"), 409)["detail"]
    assert service.client.post(f"/rq/requeue/{quote(QUEUE, safe='')}").json() == {"status": "OK", "count": 0}
    with contextlib.closing(service.redis()) as connection:
        assert all(connection.exists(f"rq:job:{job_id}") for job_id in theirs)
