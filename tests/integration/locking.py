"""Transactions that wait for each other's locks, and calls at the same time."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from jobsvc.db.engine import engine
from tests.integration.factories import sql
from tests.support.service import eventually


def in_parallel(count: int, act: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait()
        return act()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(count)]]


def waits_for_a_lock() -> bool:
    return bool(sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"))


def behind_the_lock(first: str, then: Callable[[], Any], **parameters: Any) -> Any:
    """Return the result of `then`, which waits for a row that `first` has locked and changed."""
    with ThreadPoolExecutor(1) as pool, engine().begin() as holder:
        holder.execute(text(first), parameters)
        answer = pool.submit(then)
        eventually(waits_for_a_lock)
        holder.commit()
        return answer.result()


TAKE = "UPDATE jobs SET status = 'PROCESSING', fence = fence + 1, attempts = attempts + 1 WHERE id = :id"


def waiting() -> int:
    """Return the number of connections that wait for a lock."""
    [(count,)] = sql(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return int(count)


class Line:
    """Calls that wait for each other's locks, in the order in which they were added."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._length = 0

    def add(self, move: Callable[[], Any]) -> Future[Any]:
        """Start this call in a thread, and return when it waits for a lock."""
        self._length += 1
        future = self._pool.submit(move)
        eventually(lambda: waiting() >= self._length)
        return future


@contextmanager
def locked(statement: str, **parameters: Any) -> Iterator[Line]:
    """Keep what this statement locks until the block ends, then roll back."""
    with ThreadPoolExecutor(4) as pool, engine().connect() as holder:
        holder.execute(text(statement), parameters)
        try:
            yield Line(pool)
        finally:
            holder.rollback()
