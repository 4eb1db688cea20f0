"""HTTP in tests: credentials, and the check of a problem."""

import base64
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
