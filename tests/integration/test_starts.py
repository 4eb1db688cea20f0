"""Starts that Postgres made, and of which the worker didn't hear."""

from typing import Any

import pytest

from jobsvc import jobs
from jobsvc.errors import StoreUnavailable
from jobsvc.starts import Starts
from jobsvc.states import Status
from tests.integration.making import LEASE, submit

pytestmark = pytest.mark.usefixtures("clean")


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next start takes place, and its answer is lost."""
    real = jobs.start

    def start(*args: Any) -> Any:
        monkeypatch.setattr(jobs, "start", real)
        real(*args)
        raise StoreUnavailable("cut off")

    monkeypatch.setattr(jobs, "start", start)


def test_a_start_that_was_not_heard_of_counts_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, job_ids = Starts("worker"), [submit() for _ in range(3)]
    cut_off(monkeypatch)
    with pytest.raises(StoreUnavailable):
        starts.start(job_ids)
    assert {jobs.get(job_id).status for job_id in job_ids} == {Status.PROCESSING}
    again = starts.start(job_ids[:2])
    assert {(one.job_id, one.attempt) for one in again} == {(job_id, 1) for job_id in job_ids[:2]}
    left = jobs.get(job_ids[2])
    assert (left.status, left.attempts) == (Status.PENDING, 0)
    assert jobs.history(job_ids[2])[1] == []


def test_it_is_undone_once() -> None:
    starts, job_id = Starts("worker"), submit()
    [one] = starts.start([job_id])
    starts.start([submit()])
    assert jobs.get(job_id).fence == one.fence
    assert jobs.get(job_id).status == Status.PROCESSING


def test_nobody_elses_start_is_undone() -> None:
    job_id = submit()
    jobs.start([job_id], "another", LEASE)
    assert jobs.undo_starts([job_id], "worker") == 0
    assert jobs.undo_starts([job_id], "another") == 1
    assert jobs.undo_starts([job_id], "another") == 0
