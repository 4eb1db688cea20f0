"""Ended jobs leave a real RQ, and those that are to run stay."""

from uuid import UUID

import pytest
from rq.job import Job as RQJob
from rq.job import JobStatus

from jobsvc import jobs
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.duties import Duties
from jobsvc.dispatch.rq_cleanup import MAX_LREM, withdraw
from jobsvc.states import Outcome
from tests.integration.dispatch.test_relay import fetch, no_redis, queue
from tests.integration.factories import LEASE, dispatches, new, outcome

__all__ = ["no_redis"]


def dispatched(count: int = 1, **changes: float) -> list[UUID]:
    batch = dispatches([new(**changes) for _ in range(count)])
    Duties().dispatch(batch)
    return [one.job_id for one in batch]


def in_rq(job_id: UUID) -> bool:
    return RQJob.exists(str(job_id), connection=rq_redis.connection())


def test_cancelled_job_is_removed_from_queue_and_schedule() -> None:
    [due], [later], [other] = dispatched(), dispatched(delay=60), dispatched()
    for job_id in (due, later):
        jobs.cancel(job_id)
    duties = Duties()
    duties.ended.extend([due, later])
    duties.withdraw_ended()
    assert queue().get_job_ids() == [str(other)]
    assert queue().scheduled_job_registry.get_job_ids() == []
    assert [in_rq(job_id) for job_id in (due, later, other)] == [False, False, True]


def test_queue_entries_of_many_cancelled_jobs_have_no_job() -> None:
    many = dispatched(MAX_LREM + 1)
    for job_id in many:
        jobs.cancel(job_id)
    assert withdraw(many) == []
    assert not any(map(in_rq, many))


def test_job_retried_since_is_kept() -> None:
    [job_id] = dispatched()
    jobs.cancel(job_id)
    jobs.retry(job_id)
    assert withdraw([job_id]) == []
    assert queue().get_job_ids() == [str(job_id)]


def test_job_that_rq_is_changing_is_checked_again() -> None:
    [job_id] = dispatched()
    jobs.cancel(job_id)
    fetch(job_id).set_status(JobStatus.STARTED)
    duties = Duties()
    duties.ended.extend([job_id])
    duties.withdraw_ended()
    assert in_rq(job_id)
    fetch(job_id).set_status(JobStatus.QUEUED)
    duties.withdraw_ended()
    assert not in_rq(job_id)


def test_jobs_are_removed_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.dispatch.duties.BATCH", 2)
    many = dispatched(3)
    for job_id in many:
        jobs.cancel(job_id)
    duties = Duties()
    duties.ended.extend(many)
    assert duties.withdraw_ended() == 0
    duties.withdraw_ended()
    assert queue().get_job_ids() == []


def test_nothing_happens_without_redis(no_redis: None) -> None:
    duties = Duties()
    duties.ended.extend([UUID(int=0)])
    duties.withdraw_ended()


def test_retried_job_leaves_the_failed_registry() -> None:
    [dispatch] = dispatches([new(retry_intervals=[])])
    Duties().dispatch([dispatch])
    [start] = jobs.start([dispatch.job_id], "w", LEASE)
    jobs.finish([outcome(start, Outcome.FAILED)])
    queue().failed_job_registry.add(fetch(dispatch.job_id), ttl=100)
    Duties().dispatch([jobs.retry(dispatch.job_id)[1]])
    assert queue().failed_job_registry.get_job_ids() == []


def test_sweep_prunes_old_keys() -> None:
    from tests.integration.factories import sql
    from tests.integration.jobs.test_idempotency import submit

    submit()
    sql("UPDATE idempotency_keys SET created_at = now() - interval '25 h'")
    Duties().sweep()
    assert sql("SELECT count(*) FROM idempotency_keys") == [(0,)]
