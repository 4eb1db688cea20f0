"""Cancel, retry and delete on a real Postgres: what they change, what they refuse, and races with one side
holding the row."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from jobsvc import jobs
from jobsvc.errors import JobNotFound, UniqueKeyTaken, WrongState
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, lapse, make_due, new, outcome, sql, started, submit
from tests.integration.locking import TAKE, behind_the_lock

AGAIN = "UPDATE jobs SET status = 'PENDING' WHERE id = :id"
TAKE_KEY = (
    "INSERT INTO jobs (id, type, unique_key, queue, payload, status, timeout, retry_intervals, max_attempts, due_at)"
    " VALUES (gen_random_uuid(), 'TEST_JOB', 'k', 'default', '{}', 'PENDING', 1, '{}', 1, now())"
)
CANCEL = "UPDATE jobs SET status = 'CANCELLED', finished_at = now() WHERE id = :id"


def ended(ending: Outcome, **changes: Any) -> UUID:
    start = started(**{"retry_intervals": [], **changes})
    jobs.finish([outcome(start, ending)])
    return start.job_id


def waiting(kind: Status) -> UUID:
    if kind == Status.RETRYING:
        start = started()
        jobs.finish([outcome(start, Outcome.FAILED)])
        return start.job_id
    return submit(delay=60 if kind == Status.SCHEDULED else None)


@pytest.mark.parametrize("kind", [Status.PENDING, Status.SCHEDULED, Status.RETRYING])
def test_cancelled_waiting_job_never_starts(kind: Status) -> None:
    job_id = waiting(kind)
    before = jobs.get(job_id)
    job = jobs.cancel(job_id)
    assert (before.status, job.status, job.version) == (kind, Status.CANCELLED, before.version + 1)
    assert job.finished_at is not None
    make_due(job_id)
    assert jobs.start([job_id], "w", LEASE) == []
    assert jobs.claim_due(10) == []


def test_cancel_request_is_visible_to_the_running_attempt() -> None:
    start, other = started(), started()
    job = jobs.cancel(start.job_id)
    assert (job.status, job.finished_at) == (Status.PROCESSING, None)
    assert jobs.cancel_requested([start, other]) == {start.job_id}
    first = job.cancel_requested_at
    assert jobs.cancel(start.job_id).cancel_requested_at == first
    jobs.finish([outcome(start, Outcome.CANCELLED)])
    assert jobs.get(start.job_id).status == Status.CANCELLED
    assert jobs.cancel_requested([start, other]) == set()


@pytest.mark.parametrize("ending", list(Outcome))
def test_job_with_a_cancel_request_is_not_run_again(ending: Outcome) -> None:
    start = started()
    jobs.cancel(start.job_id)
    [transition] = jobs.finish([outcome(start, ending, delay=5)])
    assert transition.status == (Status.COMPLETED if ending == Outcome.COMPLETED else Status.CANCELLED)
    job, attempts, _ = jobs.history(start.job_id)
    assert job.finished_at is not None
    assert [attempt.outcome for attempt in attempts] == ([] if ending == Outcome.COMPLETED else [ending])
    make_due(start.job_id)
    assert jobs.start([start.job_id], "w", LEASE) == []


def test_lost_attempt_with_a_cancel_request_is_cancelled() -> None:
    start = started()
    jobs.cancel(start.job_id)
    lapse(start.job_id)
    assert jobs.recover_lapsed(10, 0) == 1
    assert jobs.get(start.job_id).status == Status.CANCELLED


def test_cancel_request_does_not_apply_to_a_later_attempt() -> None:
    """The cancel request of one attempt must not stop the next one after a manual retry."""
    start = started()
    jobs.cancel(start.job_id)
    jobs.finish([outcome(start, Outcome.CANCELLED)])
    jobs.retry(start.job_id)
    assert jobs.get(start.job_id).cancel_requested_at is None
    [again] = jobs.start([start.job_id], "w", LEASE)
    assert jobs.cancel_requested([again, start]) == set()
    jobs.cancel(start.job_id)
    assert jobs.cancel_requested([start]) == set()


@pytest.mark.parametrize("ending", [Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED])
def test_finished_job_is_not_cancelled(ending: Outcome) -> None:
    job_id = ended(ending)
    before = jobs.get(job_id)
    with pytest.raises(WrongState):
        jobs.cancel(job_id)
    assert (jobs.get(job_id).status, jobs.get(job_id).version) == (before.status, before.version)


def test_unknown_jobs_are_reported() -> None:
    for act in (jobs.cancel, jobs.retry, jobs.remove):
        with pytest.raises(JobNotFound):
            act(uuid4())


def test_start_waits_for_a_cancel_and_is_refused() -> None:
    job_id = submit()
    assert behind_the_lock(CANCEL, lambda: jobs.start([job_id], "w", LEASE), id=job_id) == []
    assert jobs.get(job_id).attempts == 0


def test_cancel_waits_for_a_start_and_requests_a_stop() -> None:
    job_id = submit()
    job = behind_the_lock(TAKE, lambda: jobs.cancel(job_id), id=job_id)
    assert (job.status, job.fence) == (Status.PROCESSING, 1)
    assert job.cancel_requested_at is not None


def test_cancel_waits_for_a_finish_and_is_refused() -> None:
    start = started()
    done = "UPDATE jobs SET status = 'COMPLETED', finished_at = now() WHERE id = :id"
    with pytest.raises(WrongState):
        behind_the_lock(done, lambda: jobs.cancel(start.job_id), id=start.job_id)
    assert jobs.get(start.job_id).cancel_requested_at is None


def test_finish_waits_for_a_cancel_request() -> None:
    start = started()
    report = "UPDATE jobs SET cancel_requested_at = now() WHERE id = :id"
    [transition] = behind_the_lock(report, lambda: jobs.finish([outcome(start, Outcome.FAILED)]), id=start.job_id)
    assert transition.status == Status.CANCELLED


@pytest.mark.parametrize("ending", [Outcome.FAILED, Outcome.CANCELLED])
def test_manual_retry_starts_at_once_and_keeps_counting(ending: Outcome) -> None:
    start = started(retry_intervals=[10.0, 20.0], expires_in=60, run_at=datetime(2020, 1, 1, tzinfo=UTC))
    jobs.finish([outcome(start, ending if ending == Outcome.CANCELLED else Outcome.DISCARDED)])
    before = jobs.get(start.job_id)
    job, dispatch = jobs.retry(start.job_id)
    assert (job.status, job.attempts, job.max_attempts, job.fence) == (Status.PENDING, 1, 4, 1)
    assert (job.run_at, job.expires_at, job.finished_at, job.version) == (None, None, None, before.version + 1)
    assert (dispatch.job_id, dispatch.retry_intervals, dispatch.wait) == (start.job_id, [10.0, 20.0], 0)
    waits, left = [], []
    for _ in range(3):
        make_due(start.job_id)
        [again] = jobs.start([start.job_id], "w", LEASE)
        [transition] = jobs.finish([outcome(again, Outcome.FAILED)])
        waits.append(round((transition.due_at - datetime.now(UTC)).total_seconds()))
        left.append((again.attempt, again.max_attempts, again.fence, transition.status, transition.intervals_left))
    assert waits[:2] == [10, 20]
    assert left == [
        (2, 4, 2, Status.RETRYING, [10.0, 20.0]),
        (3, 4, 3, Status.RETRYING, [20.0]),
        (4, 4, 4, Status.FAILED, []),
    ]
    assert [attempt.number for attempt in jobs.history(start.job_id)[1]] == [1, 2, 3, 4]


def test_manual_retry_grants_a_full_set_of_attempts() -> None:
    """Discarded on its first of three: then three more, not two and not five."""
    job_id = ended(Outcome.DISCARDED, retry_intervals=[10.0, 20.0])
    jobs.retry(job_id)
    jobs.cancel(job_id)
    job, _ = jobs.retry(job_id)
    assert (job.attempts, job.max_attempts) == (1, 4)


def test_expired_job_can_be_retried() -> None:
    job_id = submit(expires_in=0.001)
    sql("SELECT pg_sleep(0.01)")
    jobs.expire(10)
    jobs.retry(job_id)
    assert jobs.expire(10) == 0
    assert len(jobs.start([job_id], "w", LEASE)) == 1


@pytest.mark.parametrize("state", ["PENDING", "PROCESSING", "COMPLETED"])
def test_only_failed_and_cancelled_jobs_are_retried(state: str) -> None:
    job_id = submit() if state == "PENDING" else started().job_id
    if state == "COMPLETED":
        job_id = ended(Outcome.COMPLETED)
    with pytest.raises(WrongState, match=state):
        jobs.retry(job_id)
    assert jobs.get(job_id).status == state


def test_retry_with_a_taken_unique_key_is_refused() -> None:
    job_id = ended(Outcome.FAILED, unique_key="k")
    holder = submit(unique_key="k")
    with pytest.raises(UniqueKeyTaken):
        jobs.retry(job_id)
    assert jobs.get(job_id).status == Status.FAILED
    jobs.cancel(holder)
    assert jobs.retry(job_id)[0].status == Status.PENDING
    assert jobs.submit([new(unique_key="k")])[0].job_id == job_id


def test_retry_waits_for_a_submission_with_its_unique_key() -> None:
    job_id = ended(Outcome.FAILED, unique_key="k")
    with pytest.raises(UniqueKeyTaken):
        behind_the_lock(TAKE_KEY, lambda: jobs.retry(job_id))


def test_submission_waits_for_a_retry_with_its_unique_key() -> None:
    job_id = ended(Outcome.FAILED, unique_key="k")
    [submitted] = behind_the_lock(AGAIN, lambda: jobs.submit([new(unique_key="k")]), id=job_id)
    assert (submitted.job_id, submitted.dispatch) == (job_id, None)


def test_second_retry_waits_for_the_first_and_is_refused() -> None:
    job_id = ended(Outcome.FAILED)
    with pytest.raises(WrongState):
        behind_the_lock(AGAIN, lambda: jobs.retry(job_id), id=job_id)


def test_delete_removes_the_attempts() -> None:
    job_id = ended(Outcome.FAILED)
    jobs.remove(job_id)
    with pytest.raises(JobNotFound):
        jobs.get(job_id)
    assert sql("SELECT count(*) FROM attempts") == [(0,)]


@pytest.mark.parametrize("state", ["PENDING", "SCHEDULED", "PROCESSING"])
def test_unfinished_job_is_not_deleted(state: str) -> None:
    job_id = started().job_id if state == "PROCESSING" else submit(delay=60 if state == "SCHEDULED" else None)
    with pytest.raises(WrongState):
        jobs.remove(job_id)
    assert jobs.get(job_id).status == state


def test_delete_waits_for_a_retry_and_is_refused() -> None:
    job_id = ended(Outcome.FAILED)
    with pytest.raises(WrongState):
        behind_the_lock(AGAIN, lambda: jobs.remove(job_id), id=job_id)


def test_retry_waits_for_a_delete_and_finds_nothing() -> None:
    job_id = ended(Outcome.FAILED)
    with pytest.raises(JobNotFound):
        behind_the_lock("DELETE FROM jobs WHERE id = :id", lambda: jobs.retry(job_id), id=job_id)
