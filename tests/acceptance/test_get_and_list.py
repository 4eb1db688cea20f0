"""The list, a job that is asked for again and again, and the job types, seen with HTTP alone."""

import uuid
from typing import Any

import pytest

from tests.support.http import refused
from tests.support.service import Service, eventually

NO_JOBS_CURSOR = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def tag() -> str:
    """A tag that no other test uses."""
    return f"{uuid.uuid4()}&,;<>é"


def get(api: Service, path: str = "/jobs", **parameters: Any) -> dict[str, Any]:
    reply = api.client.get(path, params=parameters)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_pages_are_followed_by_links_while_jobs_are_added(api: Service, tag: str) -> None:
    ids = [api.post(tags=[tag, "other"], delay=600) for _ in range(7)]
    seen: list[dict[str, Any]] = []
    reply = api.client.get("/jobs", params={"tag": [tag, "other"], "limit": 3, "status": "SCHEDULED"})
    for size in (3, 3, 1):
        body = reply.json()
        assert list(body) == ["jobs", "nextCursor"]
        assert len(body["jobs"]) == size
        seen += body["jobs"]
        api.post(tags=[tag, "other"], delay=600)
        if size == 3:
            link = reply.links["next"]
            assert link["url"].startswith("/jobs?tag=")
            assert f"cursor={body['nextCursor']}" in link["url"]
            reply = api.client.get(link["url"])
    assert "Link" not in reply.headers
    assert reply.json()["nextCursor"] is None
    assert [job["id"] for job in seen] == ids[::-1]
    assert seen[0] == api.job(ids[-1])


def test_cursor_alone_leads_to_the_next_page(api: Service, tag: str) -> None:
    ids = [api.post(tags=[tag]) for _ in range(3)]
    first = get(api, tag=tag, limit=2)
    assert [job["id"] for job in get(api, tag=tag, cursor=first["nextCursor"])["jobs"]] == ids[:1]


def test_page_ends_with_the_job_that_reaches_8_mib(api: Service, tag: str) -> None:
    """The jobs are large, and small in Postgres, which compresses them."""
    ids = [api.post(payload={"result": f"{n:02}" + "a" * 900_000}, tags=[tag], delay=600) for n in range(20)]
    seen: list[str] = []
    reply = api.client.get("/jobs", params={"tag": tag, "limit": 200})
    for size in (10, 10):
        assert 8 * 2**20 <= len(reply.content) < 8 * 2**20 + 910_000
        page = reply.json()
        seen += [job["id"] for job in page["jobs"]]
        assert len(page["jobs"]) == size
        if page["nextCursor"]:
            assert reply.links["next"]
            reply = api.client.get(reply.links["next"]["url"])
    assert seen == ids[::-1]
    assert page["nextCursor"] is None


def test_every_filter_is_applied(api: Service, tag: str) -> None:
    plain, later = api.post(tags=[tag]), api.post(tags=[tag, "late"], delay=600)
    other = api.post("SUM", {"numbers": []}, tags=[tag])
    created = api.job(later)["createdAt"]
    for parameters, expected in [
        ({}, [other, later, plain]),
        ({"status": "SCHEDULED"}, [later]),
        # A worker of other tests may run the jobs that are due.
        ({"status": ["SCHEDULED", "PENDING", "PROCESSING", "COMPLETED"]}, [other, later, plain]),
        ({"status": "FAILED"}, []),
        ({"type": "SUM"}, [other]),
        ({"queue": "default"}, [later, plain]),
        ({"tag": [tag, "late"]}, [later]),
        ({"createdAfter": created, "status": "SCHEDULED"}, [later]),
        ({"createdBefore": created, "status": "SCHEDULED"}, []),
        ({"createdAfter": "2020-01-01T00:00:00+01:00"}, [other, later, plain]),
    ]:
        assert [job["id"] for job in get(api, **{"tag": tag, **parameters})["jobs"]] == expected, parameters


def test_empty_list_has_no_next_page(api: Service) -> None:
    reply = api.client.get("/jobs", params={"tag": "nobody's"})
    assert reply.json() == {"jobs": [], "nextCursor": None}
    assert "Link" not in reply.headers


def test_default_page_has_50_jobs(api: Service, tag: str) -> None:
    for _ in range(51):
        api.post(tags=[tag], delay=600)
    assert len(get(api, tag=tag)["jobs"]) == 50
    assert len(get(api, tag=tag, limit=200)["jobs"]) == 51


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "limit=-1", "limit=", "limit=x", "limit=1.0", "limit=1_0", "limit=%2B5", "limit=٣"),
        *("limit=1&limit=1", "limit=" + "1" * 5000),
        *("cursor=", "cursor=x", "cursor=" + "A" * 22, "cursor=" + "A" * 5000),
        *("cursor=AZAAAAAAcACAAAAAAAAAAA", f"cursor=urn:uuid:{NO_JOBS_CURSOR}", f"cursor={{{NO_JOBS_CURSOR}}}"),
        *(f"cursor={NO_JOBS_CURSOR}0", f"cursor={NO_JOBS_CURSOR[:-1]}", "cursor=%00", "cursor=é"),
        f"cursor={NO_JOBS_CURSOR}&cursor={NO_JOBS_CURSOR}",
        *("status=", "status=pending", "status=NOPE", "status=PENDING,FAILED", "&".join(["status=FAILED"] * 17)),
        *("type=", "type=A&type=B", "type=" + "x" * 256, "type=a%00"),
        *("queue=", "queue=a&queue=b", "queue=" + "x" * 256),
        *("tag=", "tag=" + "x" * 101, "&".join(f"tag={n}" for n in range(17)), "tag=%00"),
        *("errorType=", "errorType=a&errorType=b", "errorType=" + "x" * 201, "errorType=%00"),
        *("dependsOn=", "dependsOn=x", f"dependsOn={NO_JOBS_CURSOR}0", f"dependsOn=urn:uuid:{NO_JOBS_CURSOR}"),
        f"dependsOn={NO_JOBS_CURSOR}&dependsOn={NO_JOBS_CURSOR}",
        *("error=a&error=b", "error=" + "x" * 201, "error=%00"),
        *("createdAfter=", "createdAfter=yesterday", "createdAfter=2026-01-01", "createdAfter=1764000000"),
        *(
            "createdAfter=2026-01-01T00:00:00",
            "createdBefore=2026-02-30T00:00:00Z",
            "createdBefore=9999-01-01T00:00:00Z",
        ),
        "createdAfter=2026-01-01T00:00:00Z&createdAfter=2026-01-01T00:00:00Z",
        *("offset=1", "page=2", "Limit=5", "created_after=2026-01-01T00:00:00Z"),
    ],
    ids=lambda query: query[:40],
)
def test_bad_list_parameters_are_refused(api: Service, query: str) -> None:
    problem = refused(api.client.get(f"/jobs?{query}"), 422)
    name = query.partition("=")[0]
    assert all(error["parameter"] == name and error["detail"] for error in problem["errors"])
    assert f"query parameter {name}: " in problem["detail"]


def test_jobs_are_listed_by_their_last_error(stack: Service, tag: str) -> None:
    retry = {"max": 1, "interval": 600}
    failed, retrying, recovered = (
        stack.post(payload={"failAttempts": 9}, retry={"max": 0}, tags=[tag]),
        stack.post(payload={"failAttempts": 9}, retry=retry, tags=[tag]),
        stack.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 0}, tags=[tag]),
    )
    stack.post(tags=[tag], delay=600)
    stack.until(failed, "FAILED")
    stack.until(retrying, "RETRYING")
    stack.until(recovered, "COMPLETED")
    line = "attempt 1 fails, as asked"

    def listed(**params: Any) -> list[str]:
        return [job["id"] for job in get(stack, tag=tag, **params)["jobs"]]

    every = [recovered, retrying, failed]
    assert (
        listed(errorType="RuntimeError") == listed(error=line) == listed(errorType="RuntimeError", error=line) == every
    )
    assert listed(errorType="RuntimeError", status="RETRYING") == [retrying]
    assert listed(errorType="RuntimeErro") == listed(error=line[:-1]) == listed(error="") == []
    assert listed(errorType="ValueError", error=line) == []


def test_cursor_of_a_deleted_job_is_valid(api: Service) -> None:
    assert get(api, cursor=NO_JOBS_CURSOR)["jobs"] == []


def test_parameters_of_other_routes_are_refused(api: Service) -> None:
    for path in ("/job-types?limit=1", f"/jobs/{api.post()}?limit=1", f"/jobs/{api.post()}/attempts?limit=1"):
        refused(api.client.get(path), 422)


def test_unchanged_job_is_304(api: Service) -> None:
    path = f"/jobs/{api.post(delay=600)}"
    tag = api.client.get(path).headers["ETag"]
    assert tag.startswith('"')
    for reported in (tag, f"W/{tag}", f'"other", {tag}', f'W/"x",{tag},"y"', "*"):
        reply = api.client.get(path, headers={"If-None-Match": reported})
        assert (reply.status_code, reply.content, reply.headers["ETag"]) == (304, b"", tag), reported
    for reported in ('"other"', 'W/"other"', f'"{tag[1:-1]}0"', "", ","):
        reply = api.client.get(path, headers={"If-None-Match": reported})
        assert (reply.status_code, reply.headers["ETag"]) == (200, tag), reported
    refused(api.client.get(path, headers={"If-Match": '"other"'}), 412)


def test_etag_changes_only_with_the_job(stack: Service) -> None:
    path = f"/jobs/{stack.post(payload={'durationMs': 600, 'steps': 2}, delay=0.5)}"
    tags: dict[str, Any] = {}

    def ended() -> bool:
        reply = stack.client.get(path)
        assert tags.setdefault(reply.headers["ETag"], reply.json()) == reply.json()
        is_over = reply.json()["status"] == "COMPLETED"
        assert ("Retry-After" in reply.headers) != is_over
        return bool(is_over)

    eventually(ended, 30)
    assert {job["status"] for job in tags.values()} >= {"SCHEDULED", "PROCESSING", "COMPLETED"}
    last = next(reversed(tags))
    assert stack.client.get(path, headers={"If-None-Match": last}).status_code == 304


def test_retry_after_names_the_next_useful_poll(api: Service) -> None:
    def seconds(**job: Any) -> int:
        reply = api.client.get(f"/jobs/{api.post(**job)}")
        again = api.client.get(reply.request.url, headers={"If-None-Match": reply.headers["ETag"]})
        assert again.status_code == 304
        assert int(again.headers["Retry-After"]) >= 1
        return int(reply.headers["Retry-After"])

    assert seconds() == 1
    assert seconds(delay=0.2) == 1
    assert 15 <= seconds(delay=20) <= 20
    assert seconds(delay=86_400) == 60


def test_job_types_are_listed_with_their_schemas(api: Service) -> None:
    types = {one["name"]: one for one in get(api, "/job-types")["jobTypes"]}
    assert {"TEST_JOB", "HTTP_REQUEST", "SUM"} <= set(types)
    assert "WEBHOOK" not in types
    assert list(types) == sorted(types)
    assert all(list(one) == ["name", "description", "payloadSchema", "defaults"] for one in types.values())
    test_job = types["TEST_JOB"]
    assert test_job["description"].startswith("Sleep for `durationMs`")
    assert test_job["payloadSchema"]["properties"]["durationMs"]["maximum"] == 86_400_000
    retry = {"max": 3, "interval": [1, 5, 25]}
    assert test_job["defaults"] == {"queue": "default", "timeout": 180, "retry": retry, "rateLimit": None}
    retry = {"max": 1, "interval": [2]}
    assert types["SUM"]["defaults"] == {"queue": "high", "timeout": 9, "retry": retry, "rateLimit": None}
    backoff = {"initial": 0.5, "factor": 3, "max": 60, "jitter": 0.1}
    assert types["BACKOFF"]["defaults"]["retry"] == {"max": 4, "backoff": backoff}
    assert '"timeout":180,' in api.client.get("/job-types").text  # not 180.0
    assert types["SUM"]["description"] is None
    assert types["SUM"]["payloadSchema"]["required"] == ["numbers"]


def test_listed_defaults_of_a_type_can_be_posted(api: Service) -> None:
    for one in get(api, "/job-types")["jobTypes"]:
        if one["name"] in ("TEST_JOB", "SUM"):
            payload = {"numbers": []} if one["name"] == "SUM" else {}
            with_them, without = api.post(one["name"], payload, **one["defaults"]), api.post(one["name"], payload)
            same = ("queue", "timeout", "retryIntervals", "maxAttempts")
            assert [api.job(with_them)[name] for name in same] == [api.job(without)[name] for name in same]


def test_dependents_are_listed_and_cancelled_together(api: Service, tag: str) -> None:
    first, other = api.post(delay=600), api.post(delay=600, tags=[tag])
    dependents = [api.post(dependsOn=[first, other], tags=[tag]) for _ in range(3)]
    apart = api.post(dependsOn=[other], tags=[tag])
    assert [job["id"] for job in get(api, dependsOn=first)["jobs"]] == dependents[::-1]
    assert [job["id"] for job in get(api, dependsOn=first.upper(), status="BLOCKED", limit=2)["jobs"]] == dependents[
        :0:-1
    ]
    assert [job["id"] for job in get(api, dependsOn=other, tag=tag)["jobs"]] == [apart, *dependents[::-1]]
    assert get(api, dependsOn=apart) == get(api, dependsOn=str(uuid.uuid4())) == {"jobs": [], "nextCursor": None}
    chosen = {"dependsOn": first, "payload": "{}"}
    assert [job["id"] for job in get(api, **chosen)["jobs"]] == dependents[::-1]
    assert api.client.post("/jobs/cancel", params=chosen).json() == {"count": 3}
    assert api.client.post("/jobs/cancel", params={"dependsOn": first}).json() == {"count": 0}
    assert {api.job(job_id)["status"] for job_id in dependents} == {"CANCELLED"}
    assert api.job(apart)["status"] == "BLOCKED"
    # The dependents stay known until they are deleted.
    assert len(get(api, dependsOn=first, status="CANCELLED")["jobs"]) == 3
    assert api.client.post("/jobs/delete", params={"dependsOn": first}).json() == {"count": 3}
    assert get(api, dependsOn=first)["jobs"] == []
