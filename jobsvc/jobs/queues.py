"""Queues: their job counts, and pausing them; Postgres stores which are paused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Executable, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job, Queue
from jobsvc.db.sql import now
from jobsvc.jobs.admission import paused
from jobsvc.jobs.stats import cached_if_slow, depths
from jobsvc.states import Status


@dataclass(frozen=True)
class QueueState:
    """The state of a queue. `oldest_waiting`: seconds since its longest due job was due; None if no job is due."""

    name: str
    is_paused: bool
    counts: Mapping[Status, int]
    oldest_waiting: float | None


@retrying
def pause(name: str) -> None:
    """Start no more jobs of this queue; running jobs continue. No effect if it is paused already."""
    with transaction() as connection:
        since = func.coalesce(Queue.paused_at, now())
        connection.execute(
            insert(Queue)
            .values(name=name, paused_at=now())
            .on_conflict_do_update(index_elements=[Queue.name], set_={"paused_at": since})
        )


@retrying
def resume(name: str) -> None:
    """Let jobs of this queue start again; the next sweep dispatches the withheld ones."""
    with transaction() as connection:
        connection.execute(delete(Queue).where(Queue.name == name))


def paused_queues() -> set[str]:
    """Return the names of the paused queues."""
    with transaction() as connection:
        return set(connection.scalars(paused))


def queue_states(served: Sequence[str]) -> list[QueueState]:
    """Return the state of the queues `served`, in order, then of other queues with unfinished jobs.

    With millions of jobs the counts may be up to half a minute old; `is_paused` is always current.
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


@cached_if_slow
def _ended() -> Executable:
    ended = select(Job.queue, Job.status, func.count().label("jobs"))
    return ended.where(Job.finished_at.is_not(None)).group_by(Job.queue, Job.status)
