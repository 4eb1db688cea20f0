"""Jobs that are submitted at the same time on a real Postgres share commits, but not errors."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from jobsvc import jobs
from jobsvc.db.engine import engine
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs.submit import _submit_one
from tests.integration.factories import sql, submit
from tests.integration.locking import locked, waiting
from tests.support.service import eventually

pytestmark = pytest.mark.usefixtures("clean")


@contextmanager
def one_and_a_group(*of_the_group: dict[str, Any]) -> Iterator[list[Future[UUID]]]:
    """A submit that waits for the table, which is locked in this block, and others that gather behind it."""
    with ThreadPoolExecutor(8) as pool, locked("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE") as line:
        futures = [line.add(submit)]
        futures += [pool.submit(submit, **changes) for changes in of_the_group]
        eventually(lambda: len(_submit_one._gathered) == len(of_the_group))
        yield futures


def stored() -> set[UUID]:
    return {id_ for (id_,) in sql("SELECT id FROM jobs")}


def test_concurrent_jobs_share_a_commit() -> None:
    with one_and_a_group(*[{"traceparent": f"trace {n}", "tags": [str(n)]} for n in range(5)]) as futures:
        pass
    ids = [future.result() for future in futures]
    assert stored() == set(ids)
    [(transactions,)] = sql("SELECT count(DISTINCT xmin::text) FROM jobs")
    assert transactions == 2
    assert [jobs.get(id_).tags for id_ in ids[1:]] == [[str(n)] for n in range(5)]
    assert [jobs.get(id_).traceparent for id_ in ids[1:]] == [f"trace {n}" for n in range(5)]
    assert sum(row.number for row in jobs.read_counters() if row.event == "accepted") == 6


def test_job_refused_by_postgres_is_refused_alone() -> None:
    with one_and_a_group({}, {"payload": {"text": "\x00"}}, {}) as futures:
        pass
    assert isinstance(futures[2].exception(), DBAPIError)
    assert stored() == {futures[n].result() for n in (0, 1, 3)}


def test_outage_during_a_commit_fails_the_whole_group() -> None:
    with one_and_a_group({}, {}) as futures:
        sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        assert isinstance(futures[0].exception(15), StoreUnavailable)
        eventually(lambda: waiting() == 1)
        sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        assert [type(future.exception(15)) for future in futures] == [StoreUnavailable] * 3
    assert stored() == set()
    assert submit() in stored()


def test_job_waiting_for_a_unique_key_delays_no_other() -> None:
    """Another transaction has inserted the key and not committed yet, so others wait for it."""
    columns = "id, type, queue, payload, status, timeout, retry_intervals, max_attempts, due_at, unique_key"
    values = "gen_random_uuid(), 'TEST_JOB', 'default', '{}', 'PENDING', 1, '{}', 1, now(), 'k'"
    with ThreadPoolExecutor(1) as pool, engine().connect() as holder:
        holder.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))
        behind = pool.submit(submit, unique_key="k")
        eventually(lambda: waiting() == 1)
        plain = submit()
        assert not behind.done()
        holder.rollback()
        assert {plain, behind.result(15)} == stored()


def test_concurrent_jobs_with_one_unique_key_make_one() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {future.result() for future in [pool.submit(submit, unique_key="k") for _ in range(40)]}
        others = {future.result() for future in [pool.submit(submit) for _ in range(40)]}
    assert len(ids) == 1
    assert stored() == ids | others
    assert len(others) == 40
