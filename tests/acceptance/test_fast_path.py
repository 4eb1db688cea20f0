"""Plain requests to POST /jobs take a way of their own: it is answered on it as on the other."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.test_access import READ, WRITE, guarded
from tests.support.http import bearer
from tests.support.service import Service

__all__ = ["guarded"]

PLAIN = "application/json"
NOT_PLAIN = "application/json; charset=utf-8"


def answers(service: Service, body: str, headers: dict[str, str]) -> Iterator[tuple[int, dict[str, str], Any]]:
    """The status, headers and body by either way, but for what differs from job to job or from request to request."""
    for media_type in (PLAIN, NOT_PLAIN):
        reply = service.client.post("/jobs", content=body, headers={**headers, "Content-Type": media_type})
        shown = {name: value for name, value in reply.headers.items() if name not in ("date", "location", "connection")}
        reported = reply.json()
        if job_id := reported.pop("jobId", None):
            assert reply.headers["Location"] == f"/jobs/{job_id}"
            assert service.job(job_id)["id"] == job_id
        yield reply.status_code, shown, reported


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ("{}", {}, 202),
        ('{"delay": 60, "tags": ["a"], "payload": {"result": "\u00fc"}}', {}, 202),
        ("{", {}, 400),
        ('{"delay": 1, "delay": 1}', {}, 400),
        ("[]", {}, 422),
        ('{"payload": {"a": "\\u0000"}}', {}, 422),
        ('{"type": "NOPE", "payload": {"a": 1}, "more": 1}', {}, 422),
        ("{}", {"Host": "example.com"}, 403),
        ("{}", {"Origin": "https://example.com"}, 403),
        ("{}", {"Content-Encoding": "gzip"}, 415),
    ],
)
def test_fast_and_slow_path_give_the_same_response(
    api: Service, body: str, headers: dict[str, str], status: int
) -> None:
    plain, other = answers(api, body, headers)
    assert plain == other
    assert plain[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), (bearer("wrong"), 401), (bearer(READ), 403), (bearer(WRITE), 202), ({"X-API-Key": WRITE}, 202)],
)
def test_fast_and_slow_path_check_the_key(guarded: Service, headers: dict[str, str], status: int) -> None:
    guarded.client.headers.update(bearer(READ))
    plain, other = [
        guarded.client.post("/jobs", content="{}", headers={"Authorization": "", **headers, "Content-Type": media_type})
        for media_type in (PLAIN, NOT_PLAIN)
    ]
    assert (plain.status_code, other.status_code) == (status, status)


def test_taken_unique_key_and_trace_work_on_both_paths(api: Service) -> None:
    body = '{"uniqueKey": "both paths", "delay": 60}'
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    replies = [
        api.client.post("/jobs", content=body, headers={**trace, "Content-Type": media_type})
        for media_type in (PLAIN, PLAIN, NOT_PLAIN)
    ]
    assert [reply.status_code for reply in replies] == [202, 200, 200]
    assert len({reply.json()["jobId"] for reply in replies}) == 1
