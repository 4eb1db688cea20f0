"""Jobs that wait in a child process: which of them may start, on a thread or on the loop."""

from typing import Any

import pytest

from jobsvc.worker.messages import Work
from jobsvc.worker.waiting_jobs import SharedJobs

SYNC, ASYNC = "sync", "async"


class Jobs:
    """Waiting jobs; a job is a number and its kind."""

    def __init__(self, slots: int, threads: int) -> None:
        self.wakeups = 0
        self.waiting = SharedJobs(slots, threads, lambda work: work.started == ASYNC, self.wake)

    def wake(self) -> None:
        self.wakeups += 1

    def add(self, *kinds: Any) -> None:
        self.waiting.add([Work(slot, kind, 0.0) for slot, kind in enumerate(kinds)])

    def take_async(self) -> int | None:
        work = self.waiting.take_async()
        return None if work is None else work.slot


def test_jobs_of_each_kind_come_in_order() -> None:
    jobs = Jobs(10, 10)
    jobs.add(SYNC, ASYNC, SYNC, ASYNC)
    assert [jobs.waiting.take().slot for _ in range(2)] == [0, 2]
    assert [jobs.take_async() for _ in range(3)] == [1, 3, None]
    assert jobs.waiting.count() == 0


def test_kinds_share_the_slots() -> None:
    jobs = Jobs(2, 2)
    jobs.add(ASYNC, SYNC, ASYNC)
    assert jobs.take_async() == 0
    assert jobs.waiting.take().slot == 1
    assert jobs.take_async() is None
    before = jobs.wakeups
    jobs.waiting.release(thread=True)
    assert jobs.wakeups == before + 1
    assert jobs.take_async() == 2


@pytest.mark.parametrize("kinds", [(SYNC, ASYNC), (ASYNC, SYNC)])
def test_last_slot_goes_to_the_job_that_came_first(kinds: tuple[str, str]) -> None:
    jobs = Jobs(1, 1)
    jobs.add(*kinds)
    assert jobs.take_async() == (0 if kinds[0] == ASYNC else None)
    if kinds[0] == SYNC:
        assert jobs.waiting.take().slot == 0


def test_async_job_passes_jobs_that_wait_for_a_thread() -> None:
    jobs = Jobs(3, 1)
    jobs.add(SYNC, SYNC, SYNC, ASYNC)
    assert jobs.waiting.take().slot == 0
    assert jobs.take_async() == 3
    assert jobs.waiting.wanted_threads == 1
    assert [work.slot for work in jobs.waiting.take_all()] == [1, 2]


def test_threads_are_wanted_as_far_as_there_is_work() -> None:
    jobs = Jobs(8, 4)
    assert jobs.waiting.wanted_threads == 0
    jobs.add(SYNC, SYNC, ASYNC)
    assert jobs.waiting.wanted_threads == 2
    jobs.waiting.take()
    assert jobs.waiting.wanted_threads == 2
    jobs.add(*[SYNC] * 9)
    assert jobs.waiting.wanted_threads == 4
