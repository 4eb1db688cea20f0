"""Deliveries are inserted in the transaction that finishes their job."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from jobsvc import jobs
from jobsvc.jobs import Filter
from jobsvc.jobs.serialize import dump_job
from jobsvc.jobs.webhooks import AT_ONCE
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, lapse, outcome, sql, started, submit

URL = "https://example.com/hook"


def deliveries() -> list[Any]:
    return sql("SELECT * FROM jobs WHERE type = 'WEBHOOK'")


def complete() -> UUID:
    one = started(webhook_url=URL)
    jobs.finish([outcome(one, Outcome.COMPLETED, result={"a": 1})])
    return one.job_id


def discard() -> UUID:
    one = started(webhook_url=URL)
    jobs.finish([outcome(one, Outcome.DISCARDED)])
    return one.job_id


def lose() -> UUID:
    one = started(webhook_url=URL, retry_intervals=[])
    lapse(one.job_id)
    assert jobs.recover_lapsed(10, 0) == 1
    return one.job_id


def kill() -> UUID:
    one = started(webhook_url=URL, retry_intervals=[])
    jobs.finish([jobs.lost(one.job_id, one.fence, "its process died")])
    return one.job_id


def expire() -> UUID:
    job_id = submit(webhook_url=URL, expires_in=60)
    sql("UPDATE jobs SET expires_at = now() WHERE id = :id", id=job_id)
    assert jobs.expire(10) == 1
    return job_id


def cancel() -> UUID:
    job_id = submit(webhook_url=URL)
    jobs.cancel(job_id)
    return job_id


def cancel_all() -> UUID:
    job_id = submit(webhook_url=URL)
    assert [len(batch) for batch in jobs.cancel_all(Filter(type="TEST_JOB"))] == [1]
    return job_id


def cancel_running() -> UUID:
    one = started(webhook_url=URL)
    jobs.cancel(one.job_id)
    assert deliveries() == []
    jobs.finish([outcome(one, Outcome.CANCELLED)])
    return one.job_id


ENDS = {
    complete: "job.completed",
    **dict.fromkeys((discard, lose, kill, expire), "job.failed"),
    **dict.fromkeys((cancel, cancel_all, cancel_running), "job.cancelled"),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_outcome_makes_one_delivery(end: Callable[[], UUID]) -> None:
    job = jobs.get(end())
    [delivery] = deliveries()
    assert delivery.id == job.webhook_job_id
    assert delivery.payload["url"] == URL
    assert delivery.payload["body"]["type"] == ENDS[end]
    assert delivery.payload["body"]["data"] == dump_job(job)
    assert [one.job_id for one in jobs.claim_due(10)] == [delivery.id]


@pytest.mark.parametrize("end", ENDS)
def test_job_without_a_url_has_no_delivery(end: Callable[[], UUID], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "URL", None)
    assert jobs.get(end()).webhook_job_id is None
    assert deliveries() == []


@pytest.mark.parametrize("ending", [Outcome.FAILED, Outcome.SNOOZED, Outcome.HANDED_BACK, Outcome.LOST])
def test_unfinished_job_makes_no_delivery(ending: Outcome) -> None:
    one = started(webhook_url=URL)
    jobs.finish([outcome(one, ending, delay=0)])
    assert deliveries() == []


@pytest.mark.parametrize("end", [complete, expire, cancel])
def test_failed_delivery_insert_rolls_back_the_result(end: Callable[[], UUID]) -> None:
    sql("ALTER TABLE jobs ADD CONSTRAINT no_deliveries CHECK (type <> 'WEBHOOK')")
    try:
        with pytest.raises(IntegrityError):
            end()
    finally:
        sql("ALTER TABLE jobs DROP CONSTRAINT no_deliveries")
    [status] = sql("SELECT status FROM jobs").pop()
    assert status in (Status.PROCESSING, Status.PENDING)


def test_many_results_make_many_deliveries() -> None:
    count = 2 * AT_ONCE + 3
    ids = [submit(webhook_url=URL if n % 2 else None, payload={"n": n}) for n in range(count)]
    ones = jobs.start(ids, "worker", LEASE)
    jobs.finish([outcome(one, Outcome.COMPLETED) for one in ones])
    reported = {one.payload["body"]["data"]["id"]: one.payload["body"]["data"]["payload"]["n"] for one in deliveries()}
    assert reported == {str(ids[n]): n for n in range(1, count, 2)}


def test_delivery_continues_the_trace() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    one = started(webhook_url=URL, traceparent=trace)
    assert one.traceparent == trace
    jobs.finish([outcome(one, Outcome.COMPLETED)])
    assert deliveries()[0].traceparent == trace
