"""Bounded counts of queues: the same as those of the API, and bounded."""

import pytest

from jobsvc import jobs
from jobsvc.jobs import Counted, counts
from jobsvc.states import Outcome, Status
from tests.integration.factories import outcome, sql, started, submit


def test_counts_are_those_of_the_api_while_jobs_are_few() -> None:
    for queue in ("default", "low"):
        for ending in (Outcome.COMPLETED, Outcome.FAILED, Outcome.FAILED):
            jobs.finish([outcome(started(queue=queue, retry_intervals=[]), ending)])
        jobs.finish([outcome(started(queue=queue), Outcome.FAILED)])
        jobs.cancel(submit(queue=queue))
        submit(queue=queue)
        submit(queue=queue, delay=60)
        started(queue=queue)
    jobs.pause("low")
    exact, bounded = jobs.queue_states(["default", "low", "high"]), jobs.queue_counts(["default", "low", "high"])
    assert [(one.name, one.is_paused) for one in bounded] == [("default", False), ("low", True), ("high", False)]
    for one, other in zip(exact, bounded, strict=True):
        assert {status: Counted(number, True) for status, number in one.counts.items()} == other.counts


def test_unfinished_jobs_of_other_queues_are_counted() -> None:
    submit(queue="gone")
    [served, gone] = jobs.queue_counts(["default"])
    assert (served.name, gone.name) == ("default", "gone")
    assert gone.counts[Status.PENDING] == Counted(1, True)


def test_age_of_the_longest_due_job() -> None:
    [empty] = jobs.queue_counts(["default"])
    assert empty.oldest_waiting is None
    submit(delay=60)
    [later] = jobs.queue_counts(["default"])
    assert later.oldest_waiting is None
    for number, dispatched in enumerate(("due_at", "NULL", "'infinity'"), 1):
        sql(
            f"UPDATE jobs SET due_at = now() - :age * interval '1 s', dispatched_at = {dispatched} WHERE id = :id",
            age=100 * number,
            id=submit(),
        )
        [queue] = jobs.queue_counts(["default"])
        assert queue.oldest_waiting is not None
        assert 0 <= queue.oldest_waiting - 100 * number < 30
    assert queue.counts[Status.PENDING] == Counted(3, True)


def test_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_COUNTED", 2)
    for _ in range(4):
        submit()
        jobs.finish([outcome(started(), Outcome.COMPLETED)])
        submit(delay=60)
    submit(queue="low")
    default, low = jobs.queue_counts(["default", "low"])
    for status in (Status.PENDING, Status.COMPLETED, Status.SCHEDULED):
        assert default.counts[status] == Counted(2, False)
    assert default.counts[Status.FAILED] == Counted(0, True)
    assert low.counts[Status.PENDING] == Counted(1, True)
    assert low.counts[Status.COMPLETED] == Counted(0, True)
    assert low.counts[Status.SCHEDULED] == Counted(0, False)
