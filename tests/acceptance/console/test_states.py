"""The page of a job in each state: what it says, and which actions it offers."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobsvc import jobs
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.states import Outcome, Status
from tests.integration.factories import lapse, outcome, sql, started, submit
from tests.support.service import Service

URL = "https://example.com/hook"


@pytest.fixture(autouse=True, scope="module")
def _handlers() -> None:
    bootstrap()


def waiting() -> UUID:
    return submit(concurrency_key="k", concurrency_limit=2, unique_key=uuid4().hex, tags=["a b"], expires_in=60)


def later() -> UUID:
    return submit(delay=3600)


def blocked() -> UUID:
    job_id, first = submit(), submit(delay=3600)
    change = "status = 'BLOCKED', depends_on = array[CAST(:first AS uuid)], open_dependencies = 1, dispatched_at = null"
    sql(f"UPDATE jobs SET {change} WHERE id = :id", id=job_id, first=first)
    sql("INSERT INTO dependencies VALUES (:first, :id, true)", id=job_id, first=first)
    return job_id


def processing() -> UUID:
    return started(concurrency_key=uuid4().hex, concurrency_limit=1).job_id


def stopping() -> UUID:
    job_id = started().job_id
    jobs.cancel(job_id)
    return job_id


def ended(ending: Outcome, **more: Any) -> UUID:
    one = started(webhook_url=URL)
    jobs.finish([outcome(one, ending, **more)])
    return one.job_id


def retrying() -> UUID:
    return ended(Outcome.FAILED)


def snoozed() -> UUID:
    return ended(Outcome.SNOOZED, delay=60.0)


def returned() -> UUID:
    return ended(Outcome.HANDED_BACK)


def completed() -> UUID:
    return ended(Outcome.COMPLETED, result=[None, "é", {"a": 1.5}])


def failed() -> UUID:
    return ended(Outcome.DISCARDED)


def lost() -> UUID:
    one = started(retry_intervals=[])
    lapse(one.job_id)  # the service finds it, too
    jobs.recover_lapsed(10, 0)
    return one.job_id


def expired() -> UUID:
    job_id = submit(expires_in=60)
    sql("UPDATE jobs SET expires_at = now() WHERE id = :id", id=job_id)
    jobs.expire(10)
    return job_id


def cancelled() -> UUID:
    job_id = submit()
    jobs.cancel(job_id)
    return job_id


PAGES: dict[Callable[[], UUID], tuple[Status, set[str], str]] = {
    waiting: (Status.PENDING, {"cancel"}, "Attempt 1 is due"),
    later: (Status.SCHEDULED, {"cancel"}, "due-later"),
    blocked: (Status.BLOCKED, {"cancel"}, "Workflow"),
    processing: (Status.PROCESSING, {"cancel"}, "Attempt 1 is running"),
    stopping: (Status.PROCESSING, {"cancel"}, "Cancel requested"),
    retrying: (Status.RETRYING, {"cancel"}, "retry-backoff"),
    snoozed: (Status.SCHEDULED, {"cancel"}, "snoozed"),
    returned: (Status.PENDING, {"cancel"}, "handed-back"),
    completed: (Status.COMPLETED, {"webhook", ""}, "Ended: COMPLETED"),
    failed: (Status.FAILED, {"retry", "webhook", ""}, "Ended: FAILED"),
    lost: (Status.FAILED, {"retry", ""}, "lost"),
    expired: (Status.FAILED, {"retry", ""}, "Expired"),
    cancelled: (Status.CANCELLED, {"retry", ""}, "Ended: CANCELLED"),
}


@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)
def test_page_shows_the_state_and_the_actions_that_it_allows(api: Service, make: Callable[[], UUID]) -> None:
    status, actions, text = PAGES[make]
    job_id = make()
    api.until(str(job_id), status)
    reply = api.client.get(f"/ui/jobs/{job_id}")
    assert reply.status_code == 200
    assert f'<span class="status {status.lower()}">{status}</span>' in reply.text
    assert text in reply.text
    found = re.findall(rf'hx-(?:post|delete)="/jobs/{job_id}/?([a-z]*)"', reply.text)
    assert set(found) == actions
    assert len(found) == len(actions)
    assert (f"/jobs/{job_id}/events" in reply.text) == ("cancel" in actions)


@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)
def test_job_of_each_state_is_listed_and_copied(api: Service, make: Callable[[], UUID]) -> None:
    job_id = make()
    api.until(str(job_id), PAGES[make][0])
    listed = api.client.get(f"/ui/jobs?status={PAGES[make][0]}")
    assert listed.status_code == 200
    assert f'id="job-{job_id}"' in listed.text
    assert api.client.get(f"/ui/new?like={job_id}").status_code == 200
    for path in ("", "queues/default", "types/TEST_JOB", "failures", "webhooks"):
        assert api.client.get(f"/ui/{path}").status_code == 200


@pytest.mark.parametrize("payload", [[], 5, "text", {"é": {"\u2028": "<b>"}}, {"a": "x" * 70_000}])
def test_job_with_any_payload_of_sql_has_a_page_and_a_copy(api: Service, payload: Any) -> None:
    job_id = submit(payload=payload)
    for path in (f"jobs/{job_id}", f"new?like={job_id}", "jobs"):
        reply = api.client.get(f"/ui/{path}")
        assert reply.status_code == 200, path
        assert "<b>" not in reply.text.replace("<b><span", "")
