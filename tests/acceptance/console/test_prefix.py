"""The console in a browser behind a proxy that puts a prefix in front of its paths."""

import http.client
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.console.conftest import HANDLERS
from tests.support.browser import Visitor
from tests.support.service import Service, serving

KEY, PREFIX = "k-boss-7", "/in/front"


@pytest.fixture(scope="module")
def console(apart: dict[str, str]) -> Iterator[Service]:
    keys = {"JOBSVC_API_KEYS": f"boss:admin:{KEY}", "JOBSVC_TRUST_PROXY": "1"}
    service = Service({**apart, **HANDLERS, **keys}, key=KEY)
    service.worker()
    yield service
    service.close()


@pytest.fixture
def proxied(console: Service) -> Iterator[str]:
    """The URL of a proxy that passes on what is below its prefix, and answers 502 to all else."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                return self.send_error(502, f"not below the prefix: {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            sent = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            sent |= {"X-Forwarded-Prefix": PREFIX, "X-Forwarded-Host": self.headers["Host"]}
            sent |= {"X-Forwarded-Proto": "http", "X-Forwarded-For": "127.0.0.9"}
            upstream = http.client.HTTPConnection("127.0.0.1", console.port)
            upstream.request(self.command, self.path.removeprefix(PREFIX), body or None, sent)
            reply = upstream.getresponse()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            try:
                while more := reply.read1(65536):
                    self.wfile.write(more)
                    self.wfile.flush()
            except ConnectionError:
                pass  # the browser has closed an event stream
            upstream.close()
            return None

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def visitor(browser: Browser, proxied: str) -> Iterator[Visitor]:
    visitor = Visitor(browser, proxied)
    visitor.expected.append("status of 401")
    yield visitor
    visitor.close()
    visitor.check()


def test_job_is_posted_watched_and_deleted_behind_a_prefix(console: Service, visitor: Visitor) -> None:
    credentials: dict[str, Any] = {"username": "anyone", "password": KEY}
    page = visitor.open(f"{PREFIX}/", http_credentials=credentials)
    expect(page).to_have_url(f"{visitor.url}{PREFIX}/ui/")
    page.keyboard.press("n")
    page.wait_for_url(f"**{PREFIX}/ui/new")
    page.get_by_label("Type", exact=True).select_option("BROKEN")
    page.wait_for_url("**type=BROKEN")
    expect(page.locator("#command")).to_contain_text(f"{PREFIX}/jobs")
    page.get_by_role("button", name="Post job").click()
    page.wait_for_url(f"**{PREFIX}/ui/jobs/*-*")
    job_id = page.url.rpartition("/")[2]
    expect(page.locator(".title .status")).to_have_text("FAILED")
    page.get_by_role("button", name="Retry", exact=True).click()
    expect(page.locator(".title .status")).to_have_text("COMPLETED")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.locator(f"#tick-{job_id}").check()
    page.locator("#ticked").get_by_role("button", name="Delete").click()
    page.locator("#yes").click()
    expect(page.locator(f"#job-{job_id}")).to_have_count(0)
    assert console.client.get(f"/jobs/{job_id}").status_code == 404
