"""Bounded counts: exact for few jobs, lower bounds for many, and the same few blocks read."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.jobs import Counted, Filter, counts
from jobsvc.states import Outcome, Status
from tests.integration.factories import outcome, sql, started, submit
from tests.integration.jobs.test_queries import YEAR_2026, fill, some_of_each, walk
from tests.integration.plans import blocks_read


def numbers(wanted: Filter) -> dict[Status, int]:
    return {status: one.number for status, one in jobs.count_by_status(wanted).items()}


def listed(wanted: Filter) -> dict[Status, int]:
    return {status: len(walk(replace(wanted, statuses=[status]), 200)) for status in Status}


def some_filters() -> list[Filter]:
    made = some_of_each()
    error = "jsonb_build_object('type', 'E', 'message', queue, 'attempt', 1)"
    sql(f"UPDATE jobs SET error = {error} WHERE tags IS NOT NULL")
    middle = made[len(made) // 2].created_at
    return [
        Filter(),
        Filter([Status.FAILED]),
        Filter(type="A"),
        Filter(type="C"),
        Filter(queue="low"),
        Filter(tags=["x"]),
        Filter(tags=["y", "x"], queue="high"),
        Filter(created_after=middle),
        Filter(created_before=middle, type="B"),
        Filter(error="low"),
        Filter(error_type="E", type="A"),
        Filter(error_type="F"),
    ]


def test_counts_of_few_jobs_are_exact() -> None:
    for wanted in some_filters():
        found = jobs.count_by_status(wanted)
        assert {status: one.number for status, one in found.items()} == listed(wanted), wanted
        assert all(one.is_complete for one in found.values()), wanted


def test_counts_of_many_jobs_are_lower_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_COUNTED", 5)
    for wanted in some_filters():
        there = listed(wanted)
        for status, one in jobs.count_by_status(wanted).items():
            assert one.number <= min(there[status], 5), (wanted, status)
            assert one.number == there[status] or not one.is_complete, (wanted, status)


def test_status_with_few_jobs_is_complete_among_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_COUNTED", 5)
    failed = started(retry_intervals=[])
    jobs.finish([outcome(failed, Outcome.FAILED)])
    retrying = started()
    jobs.finish([outcome(retrying, Outcome.FAILED)])
    pending, scheduled = submit(), submit(delay=60)
    assert pending
    assert scheduled
    for _ in range(5):
        jobs.finish([outcome(started(), Outcome.COMPLETED)])
    assert jobs.count_by_status(Filter()) == {
        **dict.fromkeys((Status.PENDING, Status.SCHEDULED, Status.RETRYING, Status.FAILED), Counted(1, True)),
        **dict.fromkeys((Status.BLOCKED, Status.PROCESSING, Status.CANCELLED), Counted(0, True)),
        Status.COMPLETED: Counted(5, False),
    }


def test_few_jobs_with_a_tag_are_counted_exactly_however_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_COUNTED", 2)
    submit(tags=["old"])
    jobs.finish([outcome(started(tags=["old"]), Outcome.COMPLETED)])
    for _ in range(5):
        jobs.finish([outcome(started(), Outcome.COMPLETED)])
    found = jobs.count_by_status(Filter(tags=["old"]))
    assert (found[Status.PENDING], found[Status.COMPLETED]) == (Counted(1, True), Counted(1, True))
    submit(tags=["old"])
    assert not jobs.count_by_status(Filter(tags=["old"]))[Status.PENDING].is_complete


def test_webhook_deliveries_are_counted_only_by_type() -> None:
    submit()
    submit(type="WEBHOOK")
    assert numbers(Filter())[Status.PENDING] == 1
    assert numbers(Filter(type="WEBHOOK"))[Status.PENDING] == 1


def test_newer_jobs_that_match_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    top = submit()
    assert jobs.count_newer(Filter(), top) == 0
    ids = [submit(type="A", tags=["x"]) for _ in range(3)] + [submit(type="WEBHOOK")]
    assert jobs.count_newer(Filter(), top) == 3
    assert jobs.count_newer(Filter(), ids[1]) == 1
    assert jobs.count_newer(Filter(), top, at_most=2) == 2
    assert jobs.count_newer(Filter([Status.PENDING], type="A", tags=["x"]), top) == 3
    assert jobs.count_newer(Filter([Status.FAILED]), top) == 0
    sql('UPDATE jobs SET error = \'{"type": "E", "message": "m"}\' WHERE id = :id', id=ids[0])
    assert jobs.count_newer(Filter(error="m", error_type="E"), top) == 1
    monkeypatch.setattr(counts, "MAX_COUNTED", 1)  # two jobs are searched
    assert jobs.count_newer(Filter(), top) == 2


@pytest.mark.parametrize("status", list(Status))
def test_counts_read_few_blocks_whatever_status_the_jobs_have(monkeypatch: pytest.MonkeyPatch, status: Status) -> None:
    monkeypatch.setattr(counts, "MAX_COUNTED", 100)
    all_blocks = fill(status)
    assert all_blocks > 2500
    for wanted in (
        Filter(),
        Filter(type="NOBODYS"),
        Filter(queue="rare"),
        Filter(tags=["rare"]),
        Filter(error="never"),
        Filter(created_after=YEAR_2026 + timedelta(hours=27)),
        Filter(created_before=YEAR_2026 + timedelta(hours=1)),
    ):
        assert blocks_read(lambda wanted=wanted: jobs.count_by_status(wanted)) < 200, wanted  # type: ignore[misc]
    assert blocks_read(lambda: jobs.count_newer(Filter(type="NOBODYS"), UUID(int=0))) < 50
    assert blocks_read(lambda: jobs.queue_counts(["high", "default", "rare"])) < 300
