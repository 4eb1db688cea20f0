"""Many jobs in one request: all or none are stored, and their ids come in order."""

import json
import uuid
from typing import Any

import pytest

from tests.acceptance.test_bad_input import count
from tests.support.http import refused
from tests.support.service import Service


def batch(service: Service, *jobs: dict[str, Any]) -> list[str]:
    reply = service.client.post("/jobs/batch", json={"jobs": jobs})
    assert reply.status_code == 202, reply.text
    assert list(reply.json()) == ["jobIds"]
    return list(reply.json()["jobIds"])


def test_batch_of_a_thousand_jobs_runs(stack: Service) -> None:
    before = count()
    ids = batch(stack, *({"payload": {"result": n}, "delay": 3600 if n < 990 else 0} for n in range(1000)))
    assert len(set(ids)) == 1000
    assert count() == before + 1000
    for n in (0, 499, 989):
        job = stack.job(ids[n])
        assert (job["payload"], job["status"]) == ({"result": n}, "SCHEDULED")
    for n in range(990, 1000):
        assert stack.until(ids[n], "COMPLETED")["result"] == n


def test_taken_or_repeated_unique_keys_name_their_job(api: Service) -> None:
    taken, fresh = str(uuid.uuid4()), str(uuid.uuid4())
    holder = api.post(uniqueKey=taken)
    before = count()
    ids = batch(
        api,
        {"uniqueKey": fresh},
        {},
        {"uniqueKey": taken},
        {"uniqueKey": fresh},
        {"type": "DISCARD", "uniqueKey": fresh},
    )
    assert ids[2] == holder
    assert ids[0] == ids[3]
    assert len(set(ids)) == 4
    assert count() == before + 3
    assert api.job(ids[0])["uniqueKey"] == fresh
    assert batch(api, {"uniqueKey": taken}) == [holder]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ("{}", {"/jobs"}),
        ("", {"/jobs"}),
        ("[]", {""}),
        ('{"jobs": []}', {"/jobs"}),
        ('{"jobs": {}}', {"/jobs"}),
        ('{"jobs": null}', {"/jobs"}),
        ('{"jobs": [{}], "more": 1}', {"/more"}),
        ('{"jobs": [1, {}, null]}', {"/jobs/0", "/jobs/2"}),
        ('{"jobs": [{}, {"nope": 1}]}', {"/jobs/1/nope"}),
        ('{"jobs": [{}, {}, {}, {"type": "HTTP_REQUEST", "payload": {"url": "ftp://x"}}]}', {"/jobs/3/payload/url"}),
        ('{"jobs": [{"delay": 1, "runAt": "2026-12-01T00:00:00Z"}]}', {"/jobs/0"}),
        ('{"jobs": [{"payload": {"result": "\\u0000"}}]}', {"/jobs/0/payload/result"}),
        (
            '{"jobs": [{"type": "SUM", "payload": {"numbers": [1, "2"]}}, {"delay": -1, "queue": "nope"},'
            ' {"type": "NOPE"}, {"payload": {"durationMs": -1, "steps": 0}}]}',
            {
                *("/jobs/0/payload/numbers/1", "/jobs/1/delay", "/jobs/1/queue", "/jobs/2/type"),
                *("/jobs/3/payload/durationMs", "/jobs/3/payload/steps"),
            },
        ),
    ],
)
def test_problems_of_all_jobs_are_reported_and_nothing_is_stored(api: Service, body: str, pointers: set[str]) -> None:
    before = count()
    problem = refused(api.client.post("/jobs/batch", content=body, headers={"Content-Type": "application/json"}), 422)
    assert {error["pointer"] for error in problem["errors"]} == pointers
    assert all(error["detail"] for error in problem["errors"])
    assert count() == before


def test_list_of_many_problems_is_cut(api: Service) -> None:
    problem = refused(api.client.post("/jobs/batch", json={"jobs": [{"payload": {"x": 1}}] * 1000}), 422)
    assert len(problem["errors"]) == 20
    assert problem["errors"][19]["pointer"] == "/jobs/19/payload/x"


def test_more_than_a_thousand_jobs_are_refused(api: Service) -> None:
    before = count()
    assert refused(api.client.post("/jobs/batch", json={"jobs": [{}] * 1001}), 422)["errors"][0]["pointer"] == "/jobs"
    assert count() == before


def test_batch_above_the_body_limit_is_413(api: Service) -> None:
    jobs = [{"payload": {"result": "x" * 2000}}] * 1000
    refused(api.client.post("/jobs/batch", content=json.dumps({"jobs": jobs})), 413)


@pytest.mark.parametrize(("body", "status"), [("{", 400), ('{"jobs": [{"delay": NaN}]}', 400), ("<jobs/>", 400)])
def test_invalid_json_is_400(api: Service, body: str, status: int) -> None:
    refused(api.client.post("/jobs/batch", content=body, headers={"Content-Type": "application/json"}), status)


def test_other_methods_and_parameters_are_refused(api: Service) -> None:
    refused(api.client.post("/jobs/batch?dry=1", json={"jobs": [{}]}), 422)
    refused(api.client.get("/jobs/batch"), 405)
    refused(api.client.put("/jobs/batch", json={}), 405)
