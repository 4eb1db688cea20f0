"""Queues: what is in them, and the pause of one, which Postgres keeps."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Executable, Row, delete, func, select, text, union_all
from sqlalchemy.dialects.postgresql import insert

from jobsvc.db import transaction
from jobsvc.jobs.admission import paused
from jobsvc.models import IS_DISPATCHED, IS_RUNNING, IS_TO_DISPATCH, Job, Queue
from jobsvc.sql import now, seconds_until
from jobsvc.states import Status

CHEAP_SECONDS = 0.25
RATIO = 20
"""What took longer to count than CHEAP_SECONDS serves again for RATIO times as long as it took."""


@dataclass(frozen=True)
class QueueState:
    """A queue as it stands. `oldest_waiting`: for how long (seconds) its longest due job has been due, None without."""

    name: str
    is_paused: bool
    counts: Mapping[Status, int]
    oldest_waiting: float | None


def pause(name: str) -> None:
    """Start no job of this queue from now on; those that run go on. Nothing changes where it is paused already."""
    with transaction() as connection:
        since = func.coalesce(Queue.paused_at, now())
        connection.execute(
            insert(Queue)
            .values(name=name, paused_at=now())
            .on_conflict_do_update(index_elements=[Queue.name], set_={"paused_at": since})
        )


def resume(name: str) -> None:
    """Let jobs of this queue start again; the next sweep dispatches those that were held back."""
    with transaction() as connection:
        connection.execute(delete(Queue).where(Queue.name == name))


def paused_queues() -> set[str]:
    """The names of the queues that are paused."""
    with transaction() as connection:
        return set(connection.scalars(paused))


def queue_states(served: Sequence[str]) -> list[QueueState]:
    """The queues `served`, in their order, and after them the others that hold unfinished jobs.

    The counts are of this moment, but with millions of jobs up to RATIO times as old as counting
    takes; whether a queue is paused is always of this moment.
    """
    unfinished, ended = _unfinished(), _ended()
    are_paused = paused_queues()
    others = sorted({row.queue for row in unfinished} - set(served))
    return [_state(name, name in are_paused, unfinished, ended) for name in [*served, *others]]


def _state(name: str, is_paused: bool, unfinished: Sequence[Any], ended: Sequence[Any]) -> QueueState:
    counts = dict.fromkeys(Status, 0)
    for row in (*unfinished, *ended):
        if row.queue == name:
            counts[Status(row.status)] += row.jobs
    waits = [float(row.waited) for row in unfinished if row.queue == name and row.waited is not None]
    return QueueState(name, is_paused, counts, max(waits, default=None))


def _remembered(count: Callable[[], Executable]) -> Callable[[], Sequence[Row[Any]]]:
    """The rows of a query that counts, from memory while they are fresh; one caller at a time counts."""
    lock = threading.Lock()
    fresh_until = 0.0
    rows: Sequence[Row[Any]] = ()

    def look() -> Sequence[Row[Any]]:
        nonlocal fresh_until, rows
        with lock:
            if time.monotonic() >= fresh_until:
                with transaction() as connection:
                    begun = time.monotonic()
                    rows = connection.execute(count()).all()
                    took = time.monotonic() - begun
                fresh_until = time.monotonic() + (RATIO * took if took > CHEAP_SECONDS else 0)
            return rows

    return look


@_remembered
def _unfinished() -> Executable:
    """Each part by a partial index of its own, none of which holds what has ended."""
    parts = []
    for condition in (IS_RUNNING, IS_TO_DISPATCH, IS_DISPATCHED):
        is_due = Job.due_at <= now() if condition != IS_RUNNING else text("false")
        waited = -seconds_until(func.min(Job.due_at).filter(is_due))
        part = select(Job.queue, Job.status, func.count().label("jobs"), waited.label("waited"))
        parts.append(part.where(text(condition)).group_by(Job.queue, Job.status))
    return union_all(*parts)


@_remembered
def _ended() -> Executable:
    ended = select(Job.queue, Job.status, func.count().label("jobs"))
    return ended.where(Job.finished_at.is_not(None)).group_by(Job.queue, Job.status)
