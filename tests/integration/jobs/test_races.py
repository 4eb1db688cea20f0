"""Two moves of one job at once, in both directions: the real functions, one of which holds the row.

A move that ends an attempt holds the job's row while it waits to write the attempt's own, since
another transaction has locked that table.
"""

from contextlib import AbstractContextManager
from uuid import UUID

from jobsvc import jobs
from jobsvc.jobs import StartedAttempt
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, lapse, outcome, sql, started, submit
from tests.integration.locking import Line, locked


def finish_locked() -> AbstractContextManager[Line]:
    """A transaction that finishes an attempt other than by success locks the row and waits until the block ends."""
    return locked("LOCK TABLE attempts IN SHARE ROW EXCLUSIVE MODE")


def row_locked(job_id: UUID) -> AbstractContextManager[Line]:
    return locked("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE", id=job_id)


def lapsed() -> StartedAttempt:
    start = started()
    lapse(start.job_id)
    return start


def outcomes(job_id: UUID) -> list[str]:
    return [attempt.outcome for attempt in jobs.history(job_id)[1]]


def test_finish_after_recover_changes_nothing() -> None:
    start = lapsed()
    with finish_locked() as line:
        recovered = line.add(lambda: jobs.recover_lapsed(10, 0))
        finished = line.add(lambda: jobs.finish([outcome(start, Outcome.COMPLETED)]))
    assert (recovered.result(), finished.result()) == (1, [])
    assert (jobs.get(start.job_id).status, outcomes(start.job_id)) == (Status.RETRYING, ["lost"])


def test_recover_skips_a_row_locked_by_finish() -> None:
    start = lapsed()
    with finish_locked() as line:
        finished = line.add(lambda: jobs.finish([outcome(start, Outcome.FAILED)]))
        assert jobs.recover_lapsed(10, 0) == 0  # it doesn't wait
    assert len(finished.result()) == 1
    assert jobs.recover_lapsed(10, 0) == 0
    assert (jobs.get(start.job_id).status, outcomes(start.job_id)) == (Status.RETRYING, ["failed"])


def test_renew_after_recover_reports_a_lost_lease() -> None:
    start = lapsed()
    with finish_locked() as line:
        recovered = line.add(lambda: jobs.recover_lapsed(10, 0))
        renewed = line.add(lambda: jobs.renew([start], LEASE))
    assert (recovered.result(), renewed.result()) == (1, set())
    assert jobs.get(start.job_id).lease_expires_at is None


def test_recover_skips_a_row_locked_by_renew() -> None:
    start = lapsed()
    with row_locked(start.job_id) as line:
        renewed = line.add(lambda: jobs.renew([start], LEASE))
        assert jobs.recover_lapsed(10, 0) == 0
    assert renewed.result() == {start.job_id}
    assert jobs.recover_lapsed(10, 0) == 0
    assert jobs.get(start.job_id).status == Status.PROCESSING


def test_concurrent_recoveries_recover_once() -> None:
    start = lapsed()
    with finish_locked() as line:
        first = line.add(lambda: jobs.recover_lapsed(10, 0))
        assert jobs.recover_lapsed(10, 0) == 0
    assert first.result() == 1
    assert outcomes(start.job_id) == ["lost"]


def test_concurrent_finishes_of_one_attempt_store_one() -> None:
    start = started()
    with row_locked(start.job_id) as line:
        both = [
            line.add(lambda end=end: jobs.finish([outcome(start, end)]))  # type: ignore[misc]
            for end in (Outcome.COMPLETED, Outcome.FAILED)
        ]
    assert sorted(len(one.result()) for one in both) == [0, 1]


def test_concurrent_starts_start_once() -> None:
    job_id = submit()
    with row_locked(job_id) as line:
        both = [line.add(lambda: jobs.start([job_id], "w", LEASE)) for _ in range(2)]
    assert sorted(len(one.result()) for one in both) == [0, 1]
    job = jobs.get(job_id)
    assert (job.attempts, job.fence) == (1, 1)


def test_either_start_or_expire_wins() -> None:
    job_id = submit(expires_in=60)
    sql("UPDATE jobs SET expires_at = now() + interval '0.2 s' WHERE id = :id", id=job_id)
    with row_locked(job_id) as line:
        start = line.add(lambda: jobs.start([job_id], "w", LEASE))  # in time, but it waits
        sql("SELECT pg_sleep(0.3)")
        assert jobs.expire(10) == 0
    assert len(start.result()) + jobs.expire(10) == 1
    assert jobs.get(job_id).status in (Status.PROCESSING, Status.FAILED)


def test_claim_skips_rows_of_another_claim() -> None:
    first, second = submit(delay=60), submit(delay=60)
    sql("UPDATE jobs SET due_at = now()")
    with row_locked(first):
        assert [one.job_id for one in jobs.claim_due(10)] == [second]
    assert [one.job_id for one in jobs.claim_due(10)] == [first]


def test_claim_skips_a_job_that_is_being_started() -> None:
    """A relay that queried before the start doesn't claim after it."""
    job_id = submit(delay=60)
    sql("UPDATE jobs SET due_at = now() WHERE id = :id", id=job_id)
    with row_locked(job_id) as line:
        start = line.add(lambda: jobs.start([job_id], "w", LEASE))
        assert jobs.claim_due(10) == []
    assert len(start.result()) == 1
    assert jobs.claim_due(10) == []


def test_release_after_a_start_changes_nothing() -> None:
    job_id = submit()
    with row_locked(job_id) as line:
        start = line.add(lambda: jobs.start([job_id], "w", LEASE))
        released = line.add(lambda: jobs.release([job_id]))
    released.result()
    assert len(start.result()) == 1
    assert jobs.get(job_id).status == Status.PROCESSING
    assert jobs.get(job_id).dispatched_at is not None
