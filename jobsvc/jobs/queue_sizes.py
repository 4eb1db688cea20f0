"""Bounded counts of each queue's jobs; see `jobs.counts`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CompoundSelect,
    Row,
    Select,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    func,
    literal,
    null,
    select,
    text,
    true,
    union_all,
)

from jobsvc.db.conditions import IS_DISPATCHED, IS_WITHHELD_BY_PAUSE
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job, Moment
from jobsvc.db.sql import now, read_in_index_order, seconds_since
from jobsvc.jobs import counts
from jobsvc.jobs.admission import paused
from jobsvc.jobs.counts import Counted, bounded, count, in_rq, to_dispatch
from jobsvc.jobs.filters import has_status
from jobsvc.states import ENDED, Status

_IN_RQ, _TO_DISPATCH, _WITHHELD = "in RQ", "to dispatch", "withheld"
BY_ID = (Status.SCHEDULED, Status.RETRYING, Status.BLOCKED, Status.PROCESSING)


@dataclass(frozen=True)
class QueueCounts:
    """The state of a queue, with bounded counts.

    oldest_waiting: seconds since its longest due job was due; None if no job is due. If more than MAX_COUNTED of its
    jobs wait, it is the longest due of those that are first in the queue.
    """

    name: str
    is_paused: bool
    counts: Mapping[Status, Counted]
    oldest_waiting: float | None


def queue_counts(served: Sequence[str], has_others: bool = True) -> list[QueueCounts]:
    """Return the state of the queues `served`, in order; with `has_others` then of others in which jobs wait or run."""
    with transaction() as connection:
        connection.execute(read_in_index_order)
        dispatched = {name for name in connection.scalars(_dispatched_queues()) if name} if has_others else set()
        found = connection.execute(_count_all(counts.MAX_COUNTED), {"queues": list({*served, *dispatched})}).all()
        are_paused = set(connection.scalars(paused))
    others = sorted({row.queue for row in found} - set(served)) if has_others else []
    return [_state(name, found, is_paused=name in are_paused) for name in [*served, *others]]


def _dispatched_queues() -> Select[Any]:
    """Select the queues with dispatched jobs, by one step in the index for each queue."""
    first = select(Job.queue).where(text(IS_DISPATCHED)).order_by(Job.queue).limit(1)
    names = select(first.scalar_subquery().label("queue")).cte("names", recursive=True)
    after = first.where(Job.queue > names.c.queue).correlate(names).scalar_subquery()
    return select(names.union_all(select(after).where(names.c.queue.is_not(None))).c.queue)


@lru_cache  # building it takes longer than Postgres takes to execute it
def _count_all(most: int) -> CompoundSelect[Any]:
    """Select the counts of all parts, each up to `most`; the parameter `queues` has the names of the queues."""
    names = func.unnest(bindparam("queues", type_=ARRAY(Text))).table_valued("name", name="names").render_derived()
    parts = [_of_each(names, part, rows) for part, rows in _parts_of(names.c.name, most).items()]
    parts += [_by_queue(_TO_DISPATCH, to_dispatch())]
    parts += [_by_queue(status, bounded(has_status(status)).order_by(Job.id.desc())) for status in BY_ID]
    return union_all(*parts)


def _parts_of(queue: Any, most: int) -> dict[str, Select[Any]]:
    """Return the parts of one queue: its jobs in RQ, the longest due withheld one, and the ended ones by status."""
    of_queue = Job.queue.between(queue, queue)
    withheld = bounded(of_queue, text(IS_WITHHELD_BY_PAUSE)).order_by(Job.queue, Job.due_at)
    # Only columns of the index: no row of the table is read. An ended job is not due.
    columns: tuple[Any, ...] = (Job.queue, Job.status, cast(null(), Moment).label("due_at"))
    ended = select(*columns).where(of_queue, Job.finished_at.is_not(None))
    ended = ended.order_by(Job.queue, Job.status).limit(most + 1)
    return {
        _IN_RQ: in_rq(queue),
        _WITHHELD: withheld.limit(1),
        **{status: ended.where(Job.status == status) for status in ENDED},
    }


def _of_each(names: TableValuedAlias, name: str, part: Select[Any]) -> Select[Any]:
    """Count the jobs of a part for each queue in `names`."""
    rows = part.correlate(names).lateral()
    return _counted(name, rows.c).select_from(names.join(rows, true()))


def _by_queue(name: str, part: Select[Any]) -> Select[Any]:
    """Count the jobs of a part by queue."""
    return _counted(name, part.subquery().c)


def _counted(name: str, job: Any) -> Select[Any]:
    waited = seconds_since(func.min(job.due_at).filter(job.due_at <= now())).label("waited")
    numbers = (func.count().label("jobs"), waited)
    return select(literal(name).label("part"), job.queue, job.status, *numbers).group_by(job.queue, job.status)


def _state(name: str, found: Sequence[Row[Any]], is_paused: bool) -> QueueCounts:
    waits = [
        row.waited
        for row in found
        if row.queue == name and row.part in (_IN_RQ, _TO_DISPATCH, _WITHHELD) and row.waited is not None
    ]
    by_status = {status: _count(name, status, found) for status in Status}
    return QueueCounts(name, is_paused, by_status, max(waits, default=None))


def _count(queue: str, status: Status, found: Sequence[Row[Any]]) -> Counted:
    names = (_IN_RQ, _TO_DISPATCH) if status == Status.PENDING else (status,)
    mine = [row for row in found if row.part in names and row.queue == queue and row.status == status]
    read = dict.fromkeys(names, 0)
    for row in found:
        # The parts of another queue don't matter.
        if row.part in names and (row.queue == queue or row.part == _TO_DISPATCH or row.part in BY_ID):
            read[row.part] += row.jobs
    return count(sum(row.jobs for row in mine), is_complete=max(read.values()) <= counts.MAX_COUNTED)
