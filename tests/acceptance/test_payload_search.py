"""GET /jobs?payload=…, and the actions on what it finds: over a table of more rows than one request searches."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jobsvc.jobs import MAX_WALK
from jobsvc.jobs.payload_search import MAX_ROWS
from tests.support.http import bearer, refused
from tests.support.servers import sql
from tests.support.service import Service

KEYS = {"read": "r-key", "write": "w-key", "admin": "a-key"}
OLDER = MAX_WALK + MAX_ROWS // 2
"""Number of jobs in the table from the start, all completed."""

FILL = """
INSERT INTO jobs (id, type, queue, payload, status, timeout, retry_intervals, max_attempts, due_at, finished_at)
SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'TEST_JOB', 'low',
       CASE n WHEN 1 THEN '{"steps": 1, "result": "oldest"}'::jsonb ELSE '{"steps": 1}' END,
       'COMPLETED', 180, '{1}', 4, now(), now()
FROM generate_series(1, %s) AS n
"""


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    sql(apart["DATABASE_URL"], FILL, OLDER)
    keys = ",".join(f"{scope}-er:{scope}:{key}" for scope, key in KEYS.items())
    service = Service({"JOBSVC_API_KEYS": keys, **apart}, key=KEYS["admin"])
    yield service
    service.close()


def find(service: Service, payload: Any, **parameters: Any) -> httpx.Response:
    return service.client.get("/jobs", params={"payload": json.dumps(payload), **parameters})


def pages(service: Service, payload: Any, **parameters: Any) -> list[list[str]]:
    """The ids of each page, by following the links."""
    reply = find(service, payload, **parameters)
    found = []
    while True:
        assert reply.status_code == 200, reply.text
        body = reply.json()
        found.append([job["id"] for job in body["jobs"]])
        if body["nextCursor"] is None:
            assert "Link" not in reply.headers
            return found
        link = reply.links["next"]["url"]
        assert f"cursor={body['nextCursor']}" in link
        reply = service.client.get(link)


def test_jobs_are_found_by_a_part_of_their_payload(service: Service) -> None:
    ids = [service.post(payload={"result": {"to": f"{n}@x.example", "cc": [1, n]}}, delay=900) for n in range(4)]
    for payload, expected in (
        ({"result": {"to": "2@x.example"}}, [ids[2]]),
        ({"result": {"cc": [3]}}, [ids[3]]),
        ({"result": {"cc": [1]}}, ids[::-1]),
    ):
        reply = find(service, payload, limit=10)
        assert [job["id"] for job in reply.json()["jobs"]] == expected
    reply = find(service, {"result": {"cc": [1]}}, queue="default", limit=2, status=["SCHEDULED", "FAILED"])
    assert [job["id"] for job in reply.json()["jobs"]] == ids[:1:-1]
    reply = service.client.get(reply.links["next"]["url"])
    assert [job["id"] for job in reply.json()["jobs"]] == ids[1::-1]
    assert find(service, {"result": {"cc": [1]}}, queue="high").json()["jobs"] == []


def test_page_searches_a_bounded_number_of_jobs(service: Service) -> None:
    """The only match is the oldest job: all pages but the last one are empty, and none of them is the end."""
    found = pages(service, {"result": "oldest"})
    assert found[-1] == ["01900000-0000-7000-8000-000000000001"]
    assert not any(found[:-1])
    assert len(found) == -(-sql(service.env["DATABASE_URL"], "SELECT count(*) FROM jobs")[0][0] // MAX_ROWS)


def test_index_of_a_status_leads_past_other_jobs(service: Service) -> None:
    assert pages(service, {"result": "oldest"}, status="FAILED") == [[]]
    assert pages(service, {"result": "oldest"}, tag="none") == [[]]


WRONG = {
    "no JSON": "{a}",
    "empty": "",
    "a list": "[]",
    "a string": '"x"',
    "null": "null",
    "NaN": '{"a": NaN}',
    "a key twice": '{"a": 1, "a": 2}',
    "an inner key twice": '{"x": [{"a": 1, "a": 2}]}',
    "U+0000": '{"a": "\\u0000"}',
    "U+0000 in a key": '{"\\u0000": 1}',
    "a lone surrogate": '{"a": "\\ud800"}',
    "too large a number": '{"a": 1e999}',
    "too deep": '{"a":' * 101 + "1" + "}" * 101,
    "too long": '{"a": "' + "x" * 2000 + '"}',
    "the character U+0000": '{"a": "\0"}',
    "text after it": "{} {}",
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_wrong_payload_is_refused(service: Service, kind: str, method: str) -> None:
    path = "/jobs" if method == "GET" else "/jobs/delete"
    reply = service.client.request(method, path, params={"payload": WRONG[kind], "queue": "low"})
    [error] = refused(reply, 422)["errors"]
    assert error["parameter"] == "payload"
    assert error["detail"]


def test_payload_is_given_once(service: Service) -> None:
    reply = service.client.get("/jobs?payload={}&payload={}")
    assert refused(reply, 422)["errors"] == [{"parameter": "payload", "detail": "is given more than once"}]


@pytest.mark.parametrize("action", ["cancel", "retry", "delete"])
def test_action_needs_another_filter(service: Service, action: str) -> None:
    for query in ("payload={}", "payload={}&cursor=01900000-0000-7000-8000-000000000001"):
        problem = refused(service.client.post(f"/jobs/{action}?{query}"), 422)
        assert "besides payload" in problem["errors"][0]["detail"]
    cursor = "cursor=01900000-0000-7000-8000-000000000001"
    for query in (f"queue=low&{cursor}", cursor, "queue=low&payload={}&cursor=x", "queue=low&payload={}&limit=3"):
        refused(service.client.post(f"/jobs/{action}?{query}"), 422)


def test_action_goes_on_by_its_cursor(service: Service) -> None:
    """The match is the newest job, after more rows than one request searches."""
    job_id = service.post(payload={"result": "newest"}, queue="low", delay=900)
    chosen = {"queue": "low", "payload": '{"result": "newest"}'}
    first = service.client.post("/jobs/cancel", params=chosen).json()
    assert list(first) == ["count", "nextCursor"]
    assert first["count"] == 0
    assert service.job(job_id)["status"] == "SCHEDULED"
    second = service.client.post("/jobs/cancel", params={**chosen, "cursor": first["nextCursor"]}).json()
    assert second == {"count": 1}
    assert service.job(job_id)["status"] == "CANCELLED"
    # The status has an index: one request is enough.
    only = {**chosen, "status": "CANCELLED"}
    assert service.client.post("/jobs/retry", params=only).json() == {"count": 1}
    service.client.post(f"/jobs/{job_id}/cancel")
    assert service.client.post("/jobs/delete", params=only).json() == {"count": 1}
    assert service.client.post("/jobs/delete", params={"status": "FAILED", "payload": "{}"}).json() == {"count": 0}


SECRET_PARTS: list[dict[str, Any]] = [
    {"headers": {"Authorization": "Bearer s3cret"}},
    {"headers": {}},
    {"body": {"data": {"payload": {"headers": {"x-token": "guess"}}}}},
    {"list": [1, [{"headers": None}]]},
    {"url": "https://user:guess@x.example/"},
    {"body": {"data": {"payload": {"url": "https://user:guess@x.example/"}}}},
]


@pytest.mark.parametrize("payload", SECRET_PARTS, ids=json.dumps)
@pytest.mark.parametrize("page", ["/jobs", "/ui/jobs"])
def test_read_key_finds_no_secrets_by_searching(service: Service, payload: dict[str, Any], page: str) -> None:
    chosen = {"payload": json.dumps(payload)}
    refused(service.client.get(page, params=chosen, headers=bearer(KEYS["read"])), 403)
    if page == "/jobs":
        for scope in ("write", "admin"):
            assert service.client.get(page, params=chosen, headers=bearer(KEYS[scope])).status_code == 200


def test_read_key_searches_for_anything_else(service: Service) -> None:
    for payload in ({"header": 1}, {"text": "headers"}, {"url": "https://user@x.example:80/a:b@c"}):
        reply = service.client.get("/jobs", params={"payload": json.dumps(payload)}, headers=bearer(KEYS["read"]))
        assert reply.status_code == 200


def test_openapi_describes_the_search(service: Service) -> None:
    document = service.client.get("/openapi.json").json()
    for method, path in (("get", "/jobs"), ("post", "/jobs/cancel"), ("post", "/jobs/retry"), ("post", "/jobs/delete")):
        parameters = {one["name"]: one for one in document["paths"][path][method]["parameters"]}
        assert parameters["payload"]["content"]["application/json"]["schema"] == {"type": "object"}
        assert parameters["cursor"]["schema"]["type"] == "string"
    count = document["components"]["schemas"]["Count"]
    assert count["required"] == ["count"]
    assert set(count["properties"]) == {"count", "nextCursor"}


def test_longest_payload_fits_every_header(service: Service) -> None:
    """Each of its characters is six in the URL, and in the Link to the next page."""
    payload = {"result": "é" * 1985}
    reply = service.client.get("/jobs", params={"payload": json.dumps(payload, ensure_ascii=False)})
    assert reply.status_code == 200, reply.text
    assert service.client.get(reply.links["next"]["url"]).status_code == 200
