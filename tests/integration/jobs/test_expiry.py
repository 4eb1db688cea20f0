"""`expiresIn` concerns the first start alone: once an attempt has started, nothing that follows can expire the job.

The class is every way from a started attempt back to a waiting job: a failure, a timeout, a lost worker (its lease
lapsed, or its child process died), a snooze, a hand-back at shutdown; and the same ends written by a process of
version 0.1.0, which keeps the expiry in the row. A prefetched attempt has not started: a return
before the handler was called, and a start whose answer got lost, leave the expiry as it was.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.jobs import AttemptResult, StartedAttempt, lost, returned_uncounted
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, lapse, make_due, outcome, sql, started, submit


def pass_expiry(job_id: UUID) -> None:
    """Let the time pass until the job's expiry, if it has one, is over."""
    sql("UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = :id AND expires_at IS NOT NULL", id=job_id)


ENDS: dict[str, Callable[[StartedAttempt], AttemptResult]] = {
    "failed": lambda start: outcome(start, Outcome.FAILED),
    "timed out": lambda start: outcome(start, Outcome.TIMEOUT),
    "child process died": lambda start: lost(start.job_id, start.fence, "dead"),
    "snoozed": lambda start: outcome(start, Outcome.SNOOZED, delay=5.0),
    "returned": lambda start: returned_uncounted(start.job_id, start.fence),
}
WAITS_AS = {"snoozed": Status.SCHEDULED, "returned": Status.PENDING}


@pytest.mark.parametrize("how", ENDS)
def test_started_job_does_not_expire(how: str) -> None:
    start = started(expires_in=60)
    jobs.finish([ENDS[how](start)])
    pass_expiry(start.job_id)
    assert jobs.expire(10) == 0
    job = jobs.get(start.job_id)
    assert (job.status, job.expires_at) == (WAITS_AS.get(how, Status.RETRYING), None)
    assert job.expiry_met is not None
    make_due(start.job_id)
    assert len(jobs.start([start.job_id], "w", LEASE)) == 1


def test_job_with_a_lapsed_lease_does_not_expire() -> None:
    start = started(expires_in=60)
    lapse(start.job_id)
    pass_expiry(start.job_id)
    assert jobs.recover_lapsed(10, 0) == 1
    assert jobs.expire(10) == 0
    assert jobs.get(start.job_id).status == Status.RETRYING


@pytest.mark.parametrize("how", ENDS)
def test_job_finished_by_an_older_process_does_not_expire(how: str) -> None:
    start = started(expires_in=60)
    jobs.finish([ENDS[how](start)])
    sql("UPDATE jobs SET expires_at = now() - interval '1 s', due_at = now(), dispatched_at = now()")
    assert jobs.start([start.job_id], "w", LEASE) == []
    jobs.expire(10)
    job = jobs.get(start.job_id)
    assert (job.status, job.expires_at) == (WAITS_AS.get(how, Status.RETRYING), None)
    assert job.expiry_met is not None
    assert [one.job_id for one in jobs.claim_due(10)] == [start.job_id]
    assert len(jobs.start([start.job_id], "w", LEASE)) == 1


def test_withheld_job_stays_withheld_when_its_expiry_is_removed() -> None:
    start = started(expires_in=60)
    jobs.finish([outcome(start, Outcome.FAILED)])
    sql("UPDATE jobs SET expires_at = now(), due_at = now(), dispatched_at = 'infinity'")
    jobs.expire(10)
    assert sql("SELECT dispatched_at = 'infinity', expires_at FROM jobs") == [(True, None)]


def returned(start: StartedAttempt) -> Any:
    return jobs.finish([returned_uncounted(start.job_id, start.fence, handler_called=False)])


def undone(start: StartedAttempt) -> Any:
    return jobs.undo_starts([start.job_id], "worker")


@pytest.mark.parametrize("give_back", [returned, undone])
def test_prefetched_attempt_keeps_the_expiry(give_back: Callable[[StartedAttempt], Any]) -> None:
    start = started(expires_in=60)
    before = jobs.get(start.job_id).expires_at
    pass_expiry(start.job_id)
    assert jobs.expire(10) == 0  # it may still start, or be returned
    sql("UPDATE jobs SET expires_at = :before", before=before)
    give_back(start)
    job = jobs.get(start.job_id)
    assert (job.status, job.attempts, job.expires_at) == (Status.PENDING, 0, before)
    pass_expiry(start.job_id)
    assert jobs.start([start.job_id], "w", LEASE) == []
    assert jobs.expire(10) == 1
    assert jobs.get(start.job_id).error == {"type": "Expired", "message": "not started before it expired", "attempt": 0}


def test_finished_job_still_shows_its_expiry() -> None:
    start = started(expires_in=60, retry_intervals=[])
    jobs.finish([outcome(start, Outcome.FAILED)])
    assert jobs.get(start.job_id).expires_at is not None


def test_one_pass_handles_expired_and_started_jobs() -> None:
    ran, late = started(expires_in=60), submit(expires_in=60)
    jobs.finish([outcome(ran, Outcome.FAILED)])
    sql("UPDATE jobs SET expires_at = now() - interval '1 s'")
    assert jobs.expire(10) == 2
    assert [jobs.get(job_id).status for job_id in (ran.job_id, late)] == [Status.RETRYING, Status.FAILED]
