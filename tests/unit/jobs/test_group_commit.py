"""Group commit: who goes with whom, and who pays for whose mistakes."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from jobsvc.errors import StoreUnavailable
from jobsvc.jobs.group_commit import GroupCommit
from tests.support.service import eventually


class Work:
    """The work of each group: records the groups, and blocks in the first one until `may_go` is set."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.may_go = threading.Event()
        self.commit: GroupCommit[Any, Any] = GroupCommit(self._do)

    def _do(self, requests: Sequence[Any]) -> list[Any]:
        self.groups.append(list(requests))
        self.may_go.wait(15)
        for request in requests:
            if isinstance(request, BaseException):
                raise request
        return [f"{request} done" for request in requests]

    def behind_each_other(self, pool: ThreadPoolExecutor, *requests: Any) -> list[Future[Any]]:
        """The first of these leads alone; the others come in this order while it is at it, and then it may go on."""
        futures = []
        for number, request in enumerate(requests):
            futures.append(pool.submit(self.commit, request))
            eventually(lambda number=number: self.groups and len(self.commit._gathered) == number)  # type: ignore[misc]
        self.may_go.set()
        return futures


@pytest.fixture
def work() -> Work:
    return Work()


def test_single_request_is_served_at_once(work: Work) -> None:
    work.may_go.set()
    assert [work.commit(1), work.commit(2)] == ["1 done", "2 done"]
    assert work.groups == [[1], [2]]


def test_requests_during_a_commit_share_the_next(work: Work) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = [future.result(15) for future in work.behind_each_other(pool, 1, 2, 3, 4)]
    assert outcomes == ["1 done", "2 done", "3 done", "4 done"]
    assert work.groups == [[1], [2, 3, 4]]


@pytest.mark.parametrize("place", [1, 2, 3])
def test_failing_request_fails_alone(work: Work, place: int) -> None:
    requests: list[Any] = [1, 2, 3, 4]
    requests[place] = ValueError("mine")
    with ThreadPoolExecutor(4) as pool:
        futures = work.behind_each_other(pool, *requests)
        assert futures[place].exception(15) is requests[place]
        assert [future.result(15) for future in futures if future is not futures[place]] == [
            f"{request} done" for request in requests if request is not requests[place]
        ]


def test_possibly_committed_group_is_not_repeated(work: Work) -> None:
    with ThreadPoolExecutor(3) as pool:
        first, *others = work.behind_each_other(pool, 1, StoreUnavailable("unavailable"), 3)
        assert first.result(15) == "1 done"
        assert [str(future.exception(15)) for future in others] == ["unavailable", "unavailable"]
    assert len(work.groups) == 2
    assert work.commit(5) == "5 done"


def test_interrupted_leader_leaves_no_request_waiting(work: Work) -> None:
    with ThreadPoolExecutor(4) as pool:
        futures = work.behind_each_other(pool, 1, SystemExit(), 3)
        errors = [type(future.exception(15)) for future in futures[1:]]
    assert errors == [SystemExit, StoreUnavailable]
    assert work.commit(5) == "5 done"


def test_many_threads_are_served(work: Work) -> None:
    work.may_go.set()
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work.commit, range(2000))) == [f"{request} done" for request in range(2000)]
    assert sorted(request for group in work.groups for request in group) == list(range(2000))
