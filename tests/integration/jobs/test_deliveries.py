"""The list of webhook deliveries."""

from typing import Any
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, outcome, sql, started, submit

JOB = UUID(int=7)


def deliver(**payload: Any) -> UUID:
    """A delivery with this payload, inserted as if by SQL."""
    return submit(type="WEBHOOK", payload=payload)


def reported(job_id: Any) -> dict[str, Any]:
    return {"url": "https://example.com/", "body": {"type": "job.failed", "data": {"id": job_id}}}


def listed() -> list[jobs.Delivery]:
    return jobs.deliveries(10)[0]


def test_service_without_webhooks_has_no_deliveries() -> None:
    submit()
    assert jobs.deliveries(10) == ([], None)


def test_delivery_names_its_job_event_and_receiver() -> None:
    one = started(webhook_url="https://example.com/hook?a=b")
    jobs.finish([outcome(one, Outcome.DISCARDED)])
    [delivery] = listed()
    assert delivery.id == jobs.get(one.job_id).webhook_job_id
    assert (delivery.about, delivery.event, delivery.url) == (
        one.job_id,
        "job.failed",
        "https://example.com/hook?a=b",
    )
    assert (delivery.status, delivery.attempts, delivery.answer, delivery.error) == (Status.PENDING, 0, None, None)
    assert delivery.max_attempts > 1


def test_pages_hold_each_delivery_once_newest_first() -> None:
    made = [deliver(**reported(str(JOB))) for _ in range(5)]
    seen, cursor = [], None
    for size in (2, 2, 1):
        page, cursor = jobs.deliveries(2, cursor)
        assert len(page) == size
        seen += [one.id for one in page]
    assert cursor is None
    assert seen == made[::-1]


def test_full_last_page_has_no_cursor() -> None:
    made = [deliver(**reported(str(JOB))) for _ in range(2)]
    assert jobs.deliveries(2)[1] is None
    page, cursor = jobs.deliveries(1)
    assert ([one.id for one in page], cursor) == ([made[1]], made[1])
    assert jobs.deliveries(2, made[0]) == ([], None)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"url": None, "body": None},
        {"url": 5, "body": "text"},
        {"body": {"type": [1], "data": []}},
        *(
            reported(job_id)
            for job_id in (None, 5, "", "x", str(JOB).replace("-", ""), f"{JOB}\n", f" {JOB}", "g" * 36, {"a": 1}, "é")
        ),
    ],
)
def test_malformed_payload_names_no_job(payload: dict[str, Any]) -> None:
    deliver(**payload)
    other = deliver(**reported(str(JOB)))
    newest, malformed = listed()
    assert (newest.id, newest.about) == (other, JOB)
    assert malformed.about is None
    assert isinstance(malformed.url, str)


def test_password_of_the_receiver_is_masked() -> None:
    deliver(url="https://me:s3cret@example.com/?to=http://a:other@b/")
    [one] = listed()
    assert "s3cret" not in str(one)
    assert "other" not in str(one)
    assert str(one.url).startswith("https://me:***@example.com/")


def test_answer_is_the_status_of_the_receiver_or_why_there_is_none() -> None:
    ok, refused = (deliver(**reported(str(JOB))) for _ in range(2))
    first, second = jobs.start([ok, refused], "worker", LEASE)
    jobs.finish(
        [outcome(first, Outcome.COMPLETED, result={"status": 204, "body": ""}), outcome(second, Outcome.FAILED)]
    )
    failed, completed = listed()
    assert (completed.status, completed.answer, completed.error) == (Status.COMPLETED, "204", None)
    assert (failed.status, failed.answer, failed.attempts) == (Status.RETRYING, None, 1)
    assert failed.error is not None
    assert failed.error["type"] == "ValueError"


@pytest.mark.parametrize("result", [None, "text", [1], {"status": {"a": 1}}])
def test_delivery_with_another_result_is_listed(result: Any) -> None:
    [one] = jobs.start([deliver(**reported(str(JOB)))], "worker", LEASE)
    jobs.finish([outcome(one, Outcome.COMPLETED, result=result)])
    [shown] = listed()
    assert shown.status == Status.COMPLETED


def test_deleted_job_keeps_its_delivery() -> None:
    one = started(webhook_url="https://example.com/")
    jobs.finish([outcome(one, Outcome.COMPLETED)])
    sql("DELETE FROM jobs WHERE id = :id", id=one.job_id)
    [delivery] = listed()
    assert delivery.about == one.job_id
