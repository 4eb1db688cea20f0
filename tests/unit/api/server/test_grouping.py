"""Plain jobs in groups: which are stored together, and the result of each."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from jobsvc.api.server.grouping import MAX_GROUP, Groups


class Store:
    """Notes the groups, and waits in the first one until it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.may_go = threading.Event()

    def __call__(self, jobs: Sequence[Any]) -> list[Any]:
        self.groups.append(list(jobs))
        assert self.may_go.wait(15)
        if "bug" in jobs:
            raise KeyError("bug")
        return [job if isinstance(job, Exception) else f"{job} stored" for job in jobs]


def submit_all(*jobs: Any) -> tuple[list[list[Any]], list[Any]]:
    """Submit these while the first is being stored; returns the groups and each job's result."""
    store = Store()

    async def run() -> list[Any]:
        groups = Groups(store, asyncio.get_running_loop())
        futures = [groups.submit(job) for job in jobs]
        store.may_go.set()
        return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), 15)

    return store.groups, asyncio.run(run())


def test_jobs_arriving_during_a_commit_are_stored_together() -> None:
    groups, received = submit_all(1, 2, 3)
    assert groups == [[1], [2, 3]]
    assert received == ["1 stored", "2 stored", "3 stored"]


def test_each_job_gets_its_own_error() -> None:
    error = ValueError("mine")
    _, received = submit_all(1, error, 3)
    assert received == ["1 stored", error, "3 stored"]


def test_unexpected_error_fails_its_group_only(caplog: pytest.LogCaptureFixture) -> None:
    groups, received = submit_all(*range(MAX_GROUP + 1), "bug", *range(2 * MAX_GROUP))
    assert max(map(len, groups)) == MAX_GROUP
    failed = [group for group in groups if "bug" in group]
    assert len(failed) == 1
    assert sum(isinstance(one, KeyError) for one in received) == len(failed[0])
    assert "storing" in caplog.text


def test_disconnected_client_disturbs_no_other_job() -> None:
    store = Store()

    async def run() -> Any:
        groups = Groups(store, asyncio.get_running_loop())
        futures = [groups.submit(job) for job in (1, 2, 3)]
        futures[1].cancel()
        store.may_go.set()
        return await asyncio.wait_for(futures[2], 15)

    assert asyncio.run(run()) == "3 stored"
