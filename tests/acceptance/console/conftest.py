"""The console in a browser, over a real service with a worker."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.acceptance.console.pages import LONG, PAGES, hostile_worker
from tests.support.browser import Visitor, launched
from tests.support.handlers.console import NAME, SCRIPTS
from tests.support.service import Service, eventually, serving

HANDLERS = {"JOBSVC_HANDLERS": "tests.support.handlers.console"}
WEBHOOKS = {"JOBSVC_WEBHOOK_SECRETS": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1Zq2YfQ="}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def console(apart: dict[str, str]) -> Iterator[Service]:
    """A service with a worker."""
    service = Service({**apart, **HANDLERS, **WEBHOOKS, "JOBSVC_SWEEP_SECONDS": "0.2"})
    service.worker(JOBSVC_CONCURRENCY="2")
    yield service
    service.close()


@pytest.fixture
def visitor(browser: Browser, console: Service) -> Iterator[Visitor]:
    """Visitors of the service; the test fails if a page does what none may do."""
    visitor = Visitor(browser, console.url)
    yield visitor
    visitor.close()
    visitor.check()


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    """The URL of a receiver of webhooks that answers with scripts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = SCRIPTS.encode()
            self.send_response(200 if self.path == "/fine" else 500, "<script>pwned()</script>")
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("X-Odd", "<script>pwned()</script>")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def ids(console: Service, receiver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Hostile jobs by their states; a schedule, a worker, webhooks."""
    file = tmp_path_factory.mktemp("console") / "end"
    options: dict[str, Any] = {"tags": [SCRIPTS[:100], "w" * 100], "concurrencyKey": SCRIPTS[:255]}
    jobs = {
        "completed": console.post(NAME, {"text": LONG, SCRIPTS: SCRIPTS}, webhookUrl=f"{receiver}/fine", **options),
        "failed": console.post(
            NAME, {"text": LONG, "fails": 9}, webhookUrl=f"{receiver}/bad?<script>", uniqueKey=SCRIPTS[:255], **options
        ),
    }
    for name in ("completed", "failed"):
        console.until(jobs[name], name.upper())
    jobs["running"] = console.post(NAME, {"text": LONG, "waits": str(file)}, timeout=3600, **options)
    jobs["scheduled"] = console.post(NAME, {"text": LONG}, delay=3600, **options)
    console.until(jobs["running"], "PROCESSING")
    jobs["middle"] = console.post(NAME, {"text": LONG}, delay=3600, **options)
    up, down = (jobs["completed"], jobs["failed"]), [console.post(NAME, {"text": LONG}, delay=3600) for _ in range(12)]
    for edge in (*((one, jobs["middle"]) for one in up), *((jobs["middle"], one) for one in down)):
        console.sql("INSERT INTO dependencies VALUES ('{}', '{}', false)".format(*edge))
    changes = f"depends_on = '{{{','.join(up)}}}', has_dependents = true, rate_key = type, rate_limit = 5, rate_per = 1"
    console.sql(f"UPDATE jobs SET {changes} WHERE id = '{jobs['middle']}'")
    job = {"type": NAME, "payload": {"text": SCRIPTS}, "tags": [SCRIPTS[:100]]}
    for name, enabled in (("daily", True), ("w" * 64, False)):
        reply = console.client.put(f"/schedules/{name}", json={"cron": "0 8 * * 1-5", "job": job, "enabled": enabled})
        assert reply.is_success, reply.text
    assert console.client.post("/schedules/daily/run").is_success
    for index in (0, 1):
        eventually(lambda index=index: console.job(list(jobs.values())[index]).get("webhookJobId"))
    bad = console.job(jobs["failed"])["webhookJobId"]
    eventually(lambda: console.job(bad)["error"])
    hostile_worker(console)
    yield jobs
    file.touch()


@pytest.fixture
def read(console: Service, visitor: Visitor, ids: dict[str, str]) -> Any:
    """A function that visits the page of a name of PAGES."""

    def visit(name: str) -> Page:
        if name.startswith("unknown"):
            visitor.expected.append("status of 404")
        return visitor.open(f"/ui/{PAGES[name].format(**ids)}")

    return visit
