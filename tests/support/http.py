"""HTTP in tests: credentials, the check of a problem, and servers that a test runs itself."""

import base64
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


def refused(reply: httpx.Response, status: int) -> dict[str, Any]:
    """The problem, after checking that it is one by RFC 9457."""
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert {"type", "title", "status", "detail", "instance"} <= set(problem)
    assert problem["status"] == status
    assert problem["instance"] == httpx.URL(reply.url).path
    for leak in ("Traceback", "SELECT", "INSERT", "psycopg", "<html", "127.0.0.1:"):
        assert leak not in reply.text
    return problem


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anyone:{key}".encode()).decode()}


class LocalServer(ThreadingHTTPServer):
    """A server on a free port of this machine, for `serving`."""

    daemon_threads = True

    def __init__(self, handler: "type[LocalHandler]") -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class LocalHandler(BaseHTTPRequestHandler):
    """Answers the requests of a LocalServer, and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass
