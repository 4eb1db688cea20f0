"""Counters of job events, written by the same statement as the event.

So they are exact with any number of processes, even if one is killed. Statements only insert rows,
so that no one waits for another; `fold_counters` merges the rows from time to time.
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
    Select,
    Text,
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

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import counters

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, float("inf"))
"""Upper bounds (seconds) of the histogram buckets for durations."""

FOLD_AT = 5000
"""Number of rows above which they are merged."""


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
_COLUMNS = ("event", "type", "queue", "status", "le", "number", "seconds")
_KEYS = text("1, 2, 3, 4, 5")


def counting(statement: Any, count: Callable[[Any], Count]) -> Select[Any]:
    """Return the statement, extended to count the rows that it returns.

    The rows must have `type` and `queue`. `count` maps their columns to a Count.
    """
    moved = statement.cte("moved")
    wanted = count(moved.c)
    event = literal(str(wanted.event)) if isinstance(wanted.event, str) else wanted.event
    # A duration equal to a bound is counted in the bucket above it.
    le = case((wanted.seconds.is_not(None), _bounds[func.width_bucket(wanted.seconds, _bounds) + 1]))
    sums = select(event, moved.c.type, moved.c.queue, wanted.status, le, func.count(), func.sum(wanted.seconds))
    counted = insert(counters).from_select(_COLUMNS, sums.group_by(_KEYS))
    return select(moved).add_cte(counted.cte("counted"))


def read_counters() -> Sequence[Any]:
    """Return all counters since the first job: event, type, queue, status, le, number, seconds.

    `le` is the bucket's upper bound, one of BOUNDS; None where no duration is measured.
    """
    with transaction() as connection:
        return connection.execute(_sums(counters)).all()


@retrying
def fold_counters(at: int = FOLD_AT) -> int:
    """Merge rows of the same kind if there are more than `at` rows; returns how many were merged."""
    ctid: ColumnElement[Any] = literal_column("ctid")
    are_many = select(counters.c.event).offset(at).limit(1).exists()
    # SKIP LOCKED: any number of processes may do this at once; each takes rows that no other has locked.
    free = select(ctid).select_from(counters).where(are_many).with_for_update(skip_locked=True)
    taken = counters.delete().where(ctid.in_(free)).returning(counters).cte("taken")
    folded = insert(counters).from_select(_COLUMNS, _sums(taken)).cte("folded")
    with transaction() as connection:
        return int(connection.scalar(select(func.count()).select_from(taken).add_cte(folded)) or 0)


def _sums(of: FromClause) -> Select[Any]:
    counts = (func.sum(of.c[name]).label(name) for name in _COLUMNS[5:])
    return select(*(of.c[name] for name in _COLUMNS[:5]), *counts).group_by(_KEYS)
