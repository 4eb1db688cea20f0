"""GET /stats from outside: what was posted is counted, in the right minute, by every process."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support.http import bearer, refused
from tests.support.service import Service

COUNTS = ("accepted", "started", "completed", "failed", "retried")
PERCENTILES = ("waitP50", "waitP95", "runP50", "runP95")


@pytest.fixture
def busy(service: Service) -> Service:
    service.worker(JOBSVC_WORKERS="2")
    return service


def read(service: Service, **asked: Any) -> dict[str, Any]:
    reply = service.client.get("/stats", params=asked)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def totals(service: Service, **asked: Any) -> dict[tuple[str, str], dict[str, int]]:
    """The counts of each series, added up."""
    found = read(service, **asked)["series"]
    return {(one["type"], one["queue"]): {name: sum(one[name]) for name in COUNTS} for one in found}


def test_every_job_is_counted_once(busy: Service) -> None:
    done = [busy.post() for _ in range(8)]
    low = busy.post(queue="low")
    failed = busy.post(payload={"failAttempts": 9}, retry={"max": 1, "interval": 0})
    crashed = busy.post("CRASH", retry={"max": 1, "interval": 0})  # its process ends in the middle
    for job_id in (*done, low, crashed):
        busy.until(job_id, "COMPLETED")
    busy.until(failed, "FAILED")
    assert busy.client.post(f"/jobs/{failed}/retry").status_code in (200, 202)
    busy.until(failed, "FAILED")
    tests = {"accepted": 9, "started": 12, "completed": 8, "failed": 2, "retried": 3}
    once = {"accepted": 1, "started": 1, "completed": 1, "failed": 0, "retried": 0}
    crash = {"accepted": 1, "started": 2, "completed": 1, "failed": 0, "retried": 1}
    expected = {("CRASH", "default"): crash, ("TEST_JOB", "default"): tests, ("TEST_JOB", "low"): once}
    assert totals(busy) == expected
    assert list(totals(busy)) == list(expected)  # sorted
    assert totals(busy, window=604800, step=900) == expected
    assert totals(busy, type="TEST_JOB", queue="low") == {("TEST_JOB", "low"): once}
    assert totals(busy, type="CRASH") == {("CRASH", "default"): crash}


def test_steps_are_aligned_and_the_last_one_is_current(busy: Service) -> None:
    busy.until(busy.post(payload={"durationMs": 1100}), "COMPLETED")
    found = read(busy)
    assert list(found) == ["from", "to", "step", "series"]
    start, end = (datetime.fromisoformat(found[name]) for name in ("from", "to"))
    assert end - start == timedelta(hours=1)
    assert start.timestamp() % 60 == end.timestamp() % 60 == 0
    assert found["step"] == 60
    [series] = found["series"]
    assert list(series) == ["type", "queue", *COUNTS, *PERCENTILES]
    assert all(len(series[name]) == 60 for name in (*COUNTS, *PERCENTILES))
    assert sum(series["completed"][-2:]) == 1  # a minute may have begun in between
    assert [length for length in series["runP50"] if length is not None] == [1.75]  # between 1 and 2.5
    assert series["runP95"][0] is series["waitP50"][0] is None


def test_processes_show_the_same(service: Service) -> None:
    other = Service()
    try:
        for one in (service, other, service):
            one.post(delay=60)
        assert totals(service) == totals(other)
        assert totals(other)["TEST_JOB", "default"]["accepted"] == 3
    finally:
        other.close()


def test_unknown_names_and_an_empty_service_have_no_series(service: Service) -> None:
    assert read(service)["series"] == []
    service.post(delay=60)
    assert read(service, type="NOBODYS")["series"] == read(service, queue="nobodys")["series"] == []


@pytest.mark.parametrize(
    ("window", "step", "count"),
    [(3600, 60, 60), (7200, 60, 120), (7201, 900, 9), (604800, 900, 672), (30, 60, 1), (100, 60, 2), (60, 3600, 1)],
)
def test_windows_are_covered_by_whole_steps(api: Service, window: int, step: int, count: int) -> None:
    api.post(delay=60)
    found = read(api, window=window, step=step)
    assert {len(one["accepted"]) for one in found["series"]} == {count}
    start, end = (datetime.fromisoformat(found[name]) for name in ("from", "to"))
    assert (end - start).total_seconds() == count * step
    assert start.timestamp() % step == 0


@pytest.mark.parametrize(
    ("parameter", "query"),
    [
        ("step", "step=90"),
        ("step", "step=0"),
        ("step", "step=-60"),
        ("step", "step=1.5"),
        ("step", "step=60&step=60"),
        ("step", "step=7260"),
        ("step", "window=7201"),
        ("step", "window=7201&step=60"),
        ("step", "window=86400&step=1000"),
        ("step", "window=604800&step=605700"),
        ("window", "window=0"),
        ("window", "window=604801&step=900"),
        ("window", "window=an-hour"),
        ("window", "window=999999999999"),
        ("type", "type="),
        ("queue", f"queue={'q' * 256}"),
        ("by", "by=type"),
    ],
)
def test_bad_parameters_are_refused(api: Service, parameter: str, query: str) -> None:
    reply = api.client.get(f"/stats?{query}")
    refused(reply, 422)
    assert [one["parameter"] for one in reply.json()["errors"]] == [parameter]


def test_error_names_the_allowed_steps(api: Service) -> None:
    [error] = api.client.get("/stats?window=7201").json()["errors"]
    assert "a multiple of 900" in error["detail"]


def test_it_needs_a_key() -> None:
    service = Service({"JOBSVC_API_KEYS": "eye:read:k-read"}, key="k-read")
    try:
        assert read(service)["step"] == 60
        for headers in ({"Authorization": ""}, bearer("wrong")):
            refused(service.client.get("/stats", headers=headers), 401)
    finally:
        service.close()
