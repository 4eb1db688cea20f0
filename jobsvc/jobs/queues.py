"""Queues: what is in them, and the pause of one, which Postgres keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Executable, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job, Queue
from jobsvc.db.sql import now
from jobsvc.jobs.admission import paused
from jobsvc.jobs.counts import depths, remembered
from jobsvc.states import Status


@dataclass(frozen=True)
class QueueState:
    """A queue as it stands. `oldest_waiting`: for how long (seconds) its longest due job has been due, None without."""

    name: str
    is_paused: bool
    counts: Mapping[Status, int]
    oldest_waiting: float | None


@retrying
def pause(name: str) -> None:
    """Start no job of this queue from now on; those that run go on. Nothing changes where it is paused already."""
    with transaction() as connection:
        since = func.coalesce(Queue.paused_at, now())
        connection.execute(
            insert(Queue)
            .values(name=name, paused_at=now())
            .on_conflict_do_update(index_elements=[Queue.name], set_={"paused_at": since})
        )


@retrying
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
    unfinished, ended = depths(), _ended()
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


@remembered
def _ended() -> Executable:
    ended = select(Job.queue, Job.status, func.count().label("jobs"))
    return ended.where(Job.finished_at.is_not(None)).group_by(Job.queue, Job.status)
