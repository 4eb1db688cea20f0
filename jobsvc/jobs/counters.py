"""Counters of job events, written by the same statement as the event.

So they are exact with any number of processes, even if one is killed. Statements only insert rows, so that no one
waits for another. `fold_counters` merges the rows from time to time, into totals without a time for /metrics, and into
`counter_history`. Earlier versions insert rows without a minute, and merge rows of all times into totals: while
such a process runs beside this one, the totals are exact, and the history lacks what it has counted or merged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import array

from jobsvc.db.counter_tables import counter_history, counters
from jobsvc.db.engine import retrying, transaction
from jobsvc.states import Status

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, float("inf"))
"""Upper bounds (seconds) of the histogram buckets for durations."""

FOLD_AT = 5000
"""Number of rows above which they are merged."""

HISTORY_COLUMNS = tuple(counter_history.c.keys())


class Event(StrEnum):
    """A counted event."""

    ACCEPTED = "accepted"  # a job was stored
    STARTED = "started"  # an attempt started; seconds: how long the job had been due
    ENDED = "ended"  # an attempt finished, with a result from its worker; seconds: its duration
    LOST = "lost"  # an attempt ended because its worker was lost
    DROPPED = "dropped"  # a waiting job was cancelled or expired, or a cancel of a running job was requested
    REVIVED = "revived"  # an ended job was retried by hand


@dataclass(frozen=True)
class Count:
    """How a statement's returned rows are counted: their event, status and duration (seconds), as SQL."""

    event: Any
    status: ColumnElement[Any] = field(default_factory=lambda: cast(null(), Text))
    seconds: ColumnElement[Any] = field(default_factory=lambda: cast(null(), Double))


_AS_ARRAY = f"('{{{', '.join(map(str, BOUNDS))}}}'::float8[])"
_bounds: ColumnElement[Any] = literal_column(_AS_ARRAY, ARRAY(Double))
_LABELS = ("event", "type", "queue", "status", "le")
_TOTALS = (*_LABELS, "number", "seconds")

# Independent of the session's time zone, unlike date_trunc.
_this_minute: ColumnElement[Any] = literal_column("date_bin('1 min', now(), 'epoch')")


def counting(
    statement: Any, count: Callable[[Any], Count], shown: Callable[[Any], Select[Any]] | None = None
) -> Select[Any]:
    """Return the statement, extended to count the rows that it returns.

    The rows must have `type` and `queue`. `count` maps their columns to a Count, `shown` to what is returned instead of
    all of them.
    """
    moved = statement.cte("moved")
    wanted = count(moved.c)
    event = literal(str(wanted.event)) if isinstance(wanted.event, str) else wanted.event
    # A duration equal to a bound is counted in the bucket above it.
    le = case((wanted.seconds.is_not(None), _bounds[func.width_bucket(wanted.seconds, _bounds) + 1]))
    labels = (event, moved.c.type, moved.c.queue, wanted.status, le)
    sums = select(*labels, func.count(), func.sum(wanted.seconds), _this_minute).group_by(text("1, 2, 3, 4, 5"))
    counted = insert(counters).from_select((*_TOTALS, "minute"), sums)
    returned = select(moved) if shown is None else shown(moved.c)
    return returned.add_cte(counted.cte("counted"))


def read_counters() -> Sequence[Any]:
    """Return all counters since the first job: event, type, queue, status, le, number, seconds.

    `le` is the bucket's upper bound, one of BOUNDS; None where no duration is measured.
    """
    with transaction() as connection:
        return connection.execute(_sums(counters, *_LABELS)).all()


def by_minute(of: FromClause) -> Select[Any]:
    """Select the counts of these rows of `counters` that have a minute, in the columns of `counter_history`."""
    # Merged first: less than half the time of many filters over all rows.
    row = _sums(of, *_LABELS, "minute").where(of.c.minute.is_not(None)).subquery("merged").c
    started, ended = (row.event == event for event in (Event.STARTED, Event.ENDED))

    def count(which: ColumnElement[bool]) -> ColumnElement[Any]:
        return cast(func.coalesce(func.sum(row.number).filter(which), 0), Integer)

    def histogram(which: ColumnElement[bool]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        counts = array([count(which & (row.le == bound)) for bound in BOUNDS])
        return counts, func.coalesce(func.sum(row.seconds).filter(which), 0)

    return select(
        row.minute,
        row.type,
        row.queue,
        count(row.event == Event.ACCEPTED),
        count(started),
        count(row.status == Status.COMPLETED),
        count(row.status == Status.FAILED),
        count((row.status == Status.RETRYING) | (row.event == Event.REVIVED)),
        *histogram(started),
        *histogram(ended),
    ).group_by(row.minute, row.type, row.queue)


def _sums(of: FromClause, *labels: str) -> Select[Any]:
    keys = [of.c[name] for name in labels]
    sums = (func.sum(of.c[name]).label(name) for name in ("number", "seconds"))
    return select(*keys, *sums).group_by(*keys)


def _fold() -> Select[Any]:
    """Move all rows that no other process has locked, if there are more than `at`; returns how many."""
    ctid: ColumnElement[Any] = literal_column("ctid")
    are_many = select(counters.c.event).offset(bindparam("at", type_=Integer)).limit(1).exists()
    # SKIP LOCKED: any number of processes may do this at once; each takes rows that no other has locked.
    free = select(ctid).select_from(counters).where(are_many).with_for_update(skip_locked=True)
    taken = counters.delete().where(ctid.in_(free)).returning(counters).cte("taken")
    folded = insert(counters).from_select(_TOTALS, _sums(taken, *_LABELS)).cte("folded")
    kept = insert(counter_history).from_select(HISTORY_COLUMNS, by_minute(taken)).cte("kept")
    return select(func.count()).select_from(taken).add_cte(folded, kept)


_fold_all = _fold()  # built once: that takes 5 ms


@retrying
def fold_counters(at: int = FOLD_AT) -> int:
    """Merge rows of the same kind if there are more than `at` rows; returns how many were merged.

    Counts with a minute are added both to the totals and to the history, in one statement.
    """
    with transaction() as connection:
        return int(connection.scalar(_fold_all, {"at": at}) or 0)
