"""Cancel, retry and delete all jobs of a filter: in batches, each committed, and only what still matches."""

from itertools import islice
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.errors import JobNotFound
from jobsvc.jobs import AttemptResult, Failure, Filter, bulk
from jobsvc.states import Outcome, Status
from tests.integration.factories import sql, started, submit
from tests.integration.jobs.test_actions import AGAIN, CANCEL, TAKE_KEY, ended
from tests.integration.locking import TAKE, behind_the_lock


def cancel_all(wanted: Filter) -> dict[UUID, Status]:
    return {job_id: status for batch in jobs.cancel_all(wanted) for job_id, status in batch.items()}


def retry_all(wanted: Filter) -> list[UUID]:
    return [dispatch.job_id for batch in jobs.retry_all(wanted) for dispatch in batch]


def test_bulk_cancel_works_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 3)
    meant = [submit(tags=["a"]) for _ in range(7)]
    running, done = started(tags=["a"]), ended(Outcome.COMPLETED, tags=["a"])
    others = [submit(), submit(tags=["b"])]
    sizes = [len(batch) for batch in jobs.cancel_all(Filter(tags=["a"]))]
    assert sizes == [3, 3, 2]
    assert {jobs.get(job_id).status for job_id in meant} == {Status.CANCELLED}
    assert jobs.cancel_requested([running]) == {running.job_id}
    assert jobs.get(done).status == Status.COMPLETED
    assert {jobs.get(job_id).status for job_id in others} == {Status.PENDING}


def test_status_filter_is_checked_again_at_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job was waiting when it was read and runs at the update, so the filter no longer matches it."""
    job_id = submit()
    moved = behind_the_lock(TAKE, lambda: cancel_all(Filter(statuses=[Status.PENDING])), id=job_id)
    assert moved == {}
    assert jobs.get(job_id).cancel_requested_at is None


def test_bulk_cancel_waits_for_a_start() -> None:
    job_id, other = submit(), submit()
    moved = behind_the_lock(TAKE, lambda: cancel_all(Filter(type="TEST_JOB")), id=job_id)
    assert moved == {job_id: Status.PROCESSING, other: Status.CANCELLED}


def test_bulk_actions_include_deliveries_only_by_type() -> None:
    delivery, job_id = submit(type="WEBHOOK"), submit()
    assert list(cancel_all(Filter(queue="default"))) == [job_id]
    assert list(cancel_all(Filter(type="WEBHOOK"))) == [delivery]


def test_bulk_actions_skip_jobs_made_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it ends, however fast jobs are posted."""
    monkeypatch.setattr(bulk, "BATCH", 1)
    meant = {submit(), submit()}
    moved: set[UUID] = set()
    for batch in islice(jobs.cancel_all(Filter(queue="default")), 5):
        moved |= set(batch)
        submit()
    assert moved == meant


def test_bulk_retry_acts_on_filtered_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 2)
    failed = [ended(Outcome.FAILED) for _ in range(3)]
    cancelled, done, pending = submit(), ended(Outcome.COMPLETED), submit()
    jobs.cancel(cancelled)
    assert retry_all(Filter(statuses=[Status.FAILED, Status.COMPLETED])) == failed
    assert retry_all(Filter(type="TEST_JOB")) == [cancelled]
    assert jobs.get(done).status == Status.COMPLETED
    assert retry_all(Filter(statuses=[Status.PENDING])) == []
    assert jobs.get(pending).version == 0


def test_bulk_retry_skips_taken_unique_keys() -> None:
    first, second, taken = (ended(Outcome.FAILED, unique_key=key) for key in ("a", "a", "b"))
    plain = ended(Outcome.FAILED)
    submit(unique_key="b")
    assert retry_all(Filter(type="TEST_JOB")) == [first, plain]
    assert {jobs.get(job_id).status for job_id in (second, taken)} == {Status.FAILED}


def test_bulk_retry_skips_a_unique_key_taken_concurrently() -> None:
    raced, plain = ended(Outcome.FAILED, unique_key="k"), ended(Outcome.FAILED)
    assert behind_the_lock(TAKE_KEY, lambda: retry_all(Filter(type="TEST_JOB"))) == [plain]
    assert jobs.get(raced).status == Status.FAILED


def test_bulk_action_commits_each_batch_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 1)
    first, second = submit(), submit()
    batches = jobs.cancel_all(Filter(queue="default"))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert (jobs.get(first).status, jobs.get(second).status) == (Status.CANCELLED, Status.PENDING)


def remove_all(wanted: Filter) -> list[UUID]:
    return [job_id for batch in jobs.remove_all(wanted) for job_id in batch]


def is_there(job_id: UUID) -> bool:
    try:
        return jobs.get(job_id) is not None
    except JobNotFound:
        return False


def test_bulk_delete_removes_ended_jobs_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 2)
    cancelled = submit(tags=["a"])
    jobs.cancel(cancelled)
    meant = [cancelled, *(ended(ending, tags=["a"]) for ending in (Outcome.COMPLETED, Outcome.FAILED, Outcome.FAILED))]
    kept = [submit(tags=["a"]), submit(tags=["a"], delay=60), started(tags=["a"]).job_id, ended(Outcome.COMPLETED)]
    assert jobs.count_removable(Filter(tags=["a"]), 10) == 4
    assert jobs.count_removable(Filter(tags=["a"]), 3) == 3
    assert [len(batch) for batch in jobs.remove_all(Filter(tags=["a"]))] == [2, 2]
    assert not any(is_there(job_id) for job_id in meant)
    assert all(is_there(job_id) for job_id in kept)
    assert sql("SELECT count(*) FROM attempts") == [(0,)]


def test_bulk_delete_keeps_to_the_statuses_of_the_filter() -> None:
    failed, done, waits = ended(Outcome.FAILED), ended(Outcome.COMPLETED), submit()
    assert remove_all(Filter([Status.FAILED, Status.PENDING])) == [failed]
    assert remove_all(Filter([Status.PENDING])) == []
    assert is_there(done)
    assert is_there(waits)


def test_bulk_delete_waits_for_a_retry_and_leaves_the_job() -> None:
    raced, other = ended(Outcome.FAILED), ended(Outcome.FAILED)
    assert behind_the_lock(AGAIN, lambda: remove_all(Filter(type="TEST_JOB")), id=raced) == [other]
    assert is_there(raced)


def test_bulk_delete_checks_the_status_of_the_filter_again_at_the_write() -> None:
    raced = ended(Outcome.FAILED)
    assert behind_the_lock(CANCEL, lambda: remove_all(Filter([Status.FAILED])), id=raced) == []
    assert is_there(raced)


def test_bulk_actions_on_jobs_with_an_error() -> None:
    def failed(error_type: str, message: str) -> UUID:
        start = started(retry_intervals=[])
        jobs.finish(
            [AttemptResult(start.job_id, start.fence, Outcome.FAILED, failure=Failure(error_type, message, ""))]
        )
        return start.job_id

    first, second, third = failed("A", "one\ntwo"), failed("B", "one"), failed("A", "")
    assert retry_all(Filter(error_type="A", error="one")) == [first]
    assert remove_all(Filter(error="two")) == []
    assert remove_all(Filter(error="one")) == [second]
    assert list(cancel_all(Filter(error_type="A"))) == [first]
    assert sorted(remove_all(Filter(error_type="A"))) == sorted([first, third])
