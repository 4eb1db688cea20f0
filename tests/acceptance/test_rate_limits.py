"""Rate limits over HTTP: which are accepted, and how they are shown."""

from typing import Any

import pytest

from tests.support.http import refused
from tests.support.service import Service

LIMIT = {"key": "smtp", "limit": 100, "per": 60}


def test_rate_limit_is_shown_as_given(api: Service) -> None:
    job = api.job(api.post(rateLimit=LIMIT))
    assert job["rateLimit"] == LIMIT
    assert list(job["rateLimit"]) == ["key", "limit", "per"]
    names = list(job)
    assert names[names.index("rateLimit") - 1 : names.index("rateLimit") + 2] == [
        *("concurrencyKey", "rateLimit", "dependsOn")
    ]
    assert '"per":60}' in api.client.get(f"/jobs/{job['id']}").text.replace(" ", "")  # not 60.0


@pytest.mark.parametrize(
    "limit", [{"key": "k", "limit": 1, "per": 0.1}, {"key": "k" * 255, "limit": 100_000, "per": 86_400}]
)
def test_smallest_and_largest_are_accepted(api: Service, limit: dict[str, Any]) -> None:
    assert api.job(api.post(rateLimit=limit))["rateLimit"] == limit


@pytest.mark.parametrize("rate_limit", [{}, {"rateLimit": None}])
def test_without_one_the_handlers_default_applies(api: Service, rate_limit: dict[str, Any]) -> None:
    assert api.job(api.post(**rate_limit))["rateLimit"] is None
    assert api.job(api.post("LIMITED", **rate_limit))["rateLimit"] == {"key": "LIMITED", "limit": 3, "per": 0.5}
    assert api.job(api.post("SHARED", **rate_limit))["rateLimit"] == {"key": "shared", "limit": 5, "per": 60}
    assert api.job(api.post("LIMITED", rateLimit=LIMIT))["rateLimit"] == LIMIT


def test_defaults_are_shown_with_the_job_types(api: Service) -> None:
    types = {one["name"]: one["defaults"] for one in api.client.get("/job-types").json()["jobTypes"]}
    assert types["TEST_JOB"]["rateLimit"] is None
    assert types["LIMITED"]["rateLimit"] == {"key": "LIMITED", "limit": 3, "per": 0.5}
    assert '"per":60}' in api.client.get("/job-types").text


@pytest.mark.parametrize(
    ("limit", "pointer"),
    [
        ({}, "/rateLimit/key"),
        ({"limit": 1, "per": 1}, "/rateLimit/key"),
        ({"key": "k", "per": 1}, "/rateLimit/limit"),
        ({"key": "k", "limit": 1}, "/rateLimit/per"),
        ({**LIMIT, "burst": 5}, "/rateLimit/burst"),
        ({**LIMIT, "key": ""}, "/rateLimit/key"),
        ({**LIMIT, "key": "k" * 256}, "/rateLimit/key"),
        ({**LIMIT, "key": 7}, "/rateLimit/key"),
        ({**LIMIT, "key": None}, "/rateLimit/key"),
        ({**LIMIT, "key": "a\u0000b"}, "/rateLimit/key"),
        ({**LIMIT, "limit": 0}, "/rateLimit/limit"),
        ({**LIMIT, "limit": 100_001}, "/rateLimit/limit"),
        ({**LIMIT, "limit": 1.5}, "/rateLimit/limit"),
        ({**LIMIT, "limit": "1"}, "/rateLimit/limit"),
        ({**LIMIT, "limit": True}, "/rateLimit/limit"),
        ({**LIMIT, "per": 0.09}, "/rateLimit/per"),
        ({**LIMIT, "per": 86_401}, "/rateLimit/per"),
        ({**LIMIT, "per": "1"}, "/rateLimit/per"),
        ({**LIMIT, "per": False}, "/rateLimit/per"),
        ("100/s", "/rateLimit"),
        ([1, 60], "/rateLimit"),
    ],
)
def test_bad_rate_limit_is_refused(api: Service, limit: Any, pointer: str) -> None:
    before = len(api.sql("SELECT FROM jobs"))
    problem = refused(api.client.post("/jobs", json={"rateLimit": limit}), 422)
    assert pointer in [one["pointer"] for one in problem["errors"]]
    problem = refused(api.client.post("/jobs/batch", json={"jobs": [{}, {"rateLimit": limit}]}), 422)
    assert f"/jobs/1{pointer}" in [one["pointer"] for one in problem["errors"]]
    assert len(api.sql("SELECT FROM jobs")) == before


def test_schedule_keeps_its_jobs_rate_limit(api: Service) -> None:
    body = {"cron": "0 0 1 1 *", "job": {"rateLimit": LIMIT}}
    assert api.client.put("/schedules/limited", json=body).status_code == 201
    assert api.client.get("/schedules/limited").json()["job"] == {"rateLimit": LIMIT}
    run = api.client.post("/schedules/limited/run")
    assert api.job(run.json()["jobId"])["rateLimit"] == LIMIT
    body["job"]["rateLimit"] = {**LIMIT, "limit": 0}
    problem = refused(api.client.put("/schedules/limited", json=body), 422)
    assert [one["pointer"] for one in problem["errors"]] == ["/job/rateLimit/limit"]
    assert api.client.delete("/schedules/limited").status_code == 204


def test_openapi_describes_the_field(api: Service) -> None:
    schemas = api.client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["RateLimitPolicy"]["required"] == ["key", "limit", "per"]
    limits = schemas["RateLimitPolicy"]["properties"]
    assert (limits["limit"]["minimum"], limits["limit"]["maximum"]) == (1, 100_000)
    assert (limits["per"]["minimum"], limits["per"]["maximum"]) == (0.1, 86_400)


def test_retry_by_hand_and_copies_keep_it(api: Service) -> None:
    job_id = api.post(rateLimit=LIMIT, delay=60)
    assert api.client.post(f"/jobs/{job_id}/cancel").status_code == 200
    assert api.client.post(f"/jobs/{job_id}/retry").json()["rateLimit"] == LIMIT
