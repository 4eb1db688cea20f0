"""Starts that Postgres committed but whose reply did not reach the worker."""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db.engine import engine
from jobsvc.errors import StoreUnavailable
from jobsvc.servers.outages import OutageTracker
from jobsvc.states import Status
from jobsvc.worker.unconfirmed_starts import UnconfirmedStarts
from tests.integration.factories import LEASE, submit
from tests.integration.locking import waiting
from tests.support.service import eventually

pytestmark = pytest.mark.usefixtures("clean")


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start takes place, and its answer is lost."""
    real = jobs.start

    def start(*args: Any) -> Any:
        monkeypatch.setattr(jobs, "start", real)
        real(*args)
        raise StoreUnavailable("cut off")

    monkeypatch.setattr(jobs, "start", start)


def unavailable(*_: Any) -> Any:
    raise StoreUnavailable("still unavailable")


def starts() -> UnconfirmedStarts:
    return UnconfirmedStarts(OutageTracker("Postgres", StoreUnavailable, logging.getLogger("test")), "worker")


def test_unconfirmed_start_counts_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, job_ids = starts(), [submit() for _ in range(3)]
    cut_off(monkeypatch)
    assert ours.start(job_ids, confirmed=()) is None
    assert {jobs.get(job_id).status for job_id in job_ids} == {Status.PROCESSING}
    again = ours.start(job_ids[:2], confirmed=())
    assert again
    assert {(one.job_id, one.attempt) for one in again} == {(job_id, 1) for job_id in job_ids[:2]}
    left = jobs.get(job_ids[2])
    assert (left.status, left.attempts) == (Status.PENDING, 0)
    assert jobs.history(job_ids[2])[1] == []
    assert not ours.has_unconfirmed


def test_confirmed_start_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when RQ names a job twice, and the second start is cut off while the first one's handler runs."""
    ours, job_id = starts(), submit()
    attempt = ours.start([job_id], confirmed=())
    assert attempt
    cut_off(monkeypatch)
    assert ours.start([job_id], confirmed=[job_id]) is None
    assert ours.undo()
    assert (jobs.get(job_id).status, jobs.get(job_id).fence) == (Status.PROCESSING, attempt[0].fence)


def test_undo_is_retried_while_postgres_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, job_id = starts(), submit()
    cut_off(monkeypatch)
    ours.start([job_id], confirmed=())
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "undo_starts", unavailable)
        assert not ours.undo()
        assert ours.start([submit()], confirmed=()) is None
    assert ours.undo()
    assert jobs.get(job_id).attempts == 0


def test_undo_waits_for_a_start_in_progress() -> None:
    job_id = submit()
    with ThreadPoolExecutor(1) as pool, engine().begin() as connection:
        connection.execute(
            text("UPDATE jobs SET status = 'PROCESSING', worker = 'worker', attempts = 1 WHERE id = :id"),
            {"id": job_id},
        )
        undone = pool.submit(jobs.undo_starts, [job_id], "worker")
        eventually(lambda: waiting() == 1)
        connection.commit()
        assert undone.result(15) == 1


def test_start_of_another_worker_is_not_undone() -> None:
    job_id = submit()
    jobs.start([job_id], "another", LEASE)
    assert jobs.undo_starts([job_id], "worker") == 0
    assert jobs.undo_starts([job_id], "another") == 1
    assert jobs.undo_starts([job_id], "another") == 0
