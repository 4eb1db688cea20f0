"""Groups of failures: by type, error type and first line, over the newest of them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.jobs import AttemptResult, Failure, Filter, failures
from jobsvc.states import Outcome, Status
from tests.integration.factories import sql, started, submit
from tests.integration.jobs.test_queries import walk


def fail(message: str = "no", error_type: str = "ValueError", retries: int = 0, **changes: Any) -> UUID:
    start = started(retry_intervals=[9.0] * retries, **changes)
    failure = Failure(error_type, message, "trace")
    jobs.finish([AttemptResult(start.job_id, start.fence, Outcome.FAILED, failure=failure)])
    return start.job_id


def test_failures_are_grouped_by_type_error_type_and_first_line() -> None:
    fail("one\ntwo", type="A")
    fail("one\r\nthree", type="A")
    last = fail("one", type="A", retries=1)
    fail("one", type="B")
    fail("one", error_type="KeyError", type="A")
    fail("x" * 300, type="A")
    fail("", type="A")
    submit()
    jobs.finish([AttemptResult(started().job_id, 1, Outcome.COMPLETED)])
    found = jobs.failure_groups()
    assert found.is_complete
    assert [(one.type, one.error_type, one.line, one.count) for one in found.groups] == [
        ("A", "ValueError", "", 1),
        ("A", "ValueError", "x" * 200, 1),
        ("A", "KeyError", "one", 1),
        ("B", "ValueError", "one", 1),
        ("A", "ValueError", "one", 3),
    ]
    group = found.groups[-1]
    assert (group.last_job_id, group.statuses) == (last, {Status.FAILED: 2, Status.RETRYING: 1})


def test_filter_of_a_group_selects_its_jobs() -> None:
    for message in (
        "one\ntwo",
        "one",
        "",
        "\n",
        "  ",
        "x" * 300,
        "x" * 200 + "y",
        "\u00e9" * 300,
        "tab\there",
        "'%s\\",
    ):
        for type_ in ("A", "B"):
            fail(message, type=type_)
            fail(message, type=type_, retries=1)
    groups = jobs.failure_groups().groups
    assert len(groups) == 2 * 7
    for group in groups:
        wanted = Filter(
            [Status.FAILED, Status.RETRYING], type=group.type, error_type=group.error_type, error=group.line
        )
        assert len(walk(wanted, 200)) == group.count
        counts = jobs.count_by_status(wanted)
        assert {status: counts[status].number for status in group.statuses} == group.statuses


def test_failure_is_seen_when_its_attempt_ended() -> None:
    first, last = fail(), fail()
    sql("UPDATE jobs SET finished_at = finished_at - interval '24 h' WHERE id = :id", id=first)
    [group] = jobs.failure_groups().groups
    assert (group.first_seen, group.last_seen) == (jobs.get(first).finished_at, jobs.get(last).finished_at)
    assert (group.count, sum(group.bins), group.bins[0], group.bins[-1], len(group.bins)) == (2, 2, 1, 1, 24)
    sql("UPDATE jobs SET finished_at = finished_at - interval '11.5 h' WHERE id = :id", id=last)
    [group] = jobs.failure_groups().groups
    assert [number for number, jobs_ in enumerate(group.bins) if jobs_] == [0, 12]
    assert group.last_seen - group.first_seen > timedelta(hours=12)


def test_failure_of_this_moment_is_in_a_bin() -> None:
    fail()
    [group] = jobs.failure_groups().groups
    assert sum(group.bins) == 1
    fail()
    sql("UPDATE jobs SET finished_at = now() + interval '1 s' WHERE id = :id", id=fail())  # a clock that was set back
    [group] = jobs.failure_groups().groups
    assert (sum(group.bins), group.count) == (3, 3)


def test_groups_of_a_type_and_a_queue() -> None:
    for type_ in ("A", "B"):
        for queue in ("default", "low"):
            fail(f"{type_} {queue}", type=type_, queue=queue)
    assert {one.line for one in jobs.failure_groups(type="A").groups} == {"A default", "A low"}
    assert {one.line for one in jobs.failure_groups(queue="low").groups} == {"A low", "B low"}
    assert {one.line for one in jobs.failure_groups(type="B", queue="low").groups} == {"B low"}
    assert jobs.failure_groups(type="C").groups == []


def test_webhook_deliveries_are_grouped_only_by_type() -> None:
    fail(type="WEBHOOK")
    assert jobs.failure_groups().groups == []
    assert len(jobs.failure_groups(type="WEBHOOK").groups) == 1


def test_only_the_newest_failures_are_grouped() -> None:
    fail("old")
    fail("retrying", retries=1)
    fail("new")
    found = jobs.failure_groups(sample=2)
    assert [one.line for one in found.groups] == ["new", "retrying"]
    assert not found.is_complete
    assert not jobs.failure_groups(type="C", sample=2).is_complete
    assert jobs.failure_groups(sample=3).is_complete


def test_number_of_groups_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_GROUPS", 2)
    for number in range(4):
        fail(str(number))
    found = jobs.failure_groups()
    assert [one.line for one in found.groups] == ["3", "2"]
    assert found.groups_found == 4


def test_no_failures() -> None:
    found = jobs.failure_groups()
    assert (found.groups, found.since, found.groups_found, found.is_complete) == ([], None, 0, True)
