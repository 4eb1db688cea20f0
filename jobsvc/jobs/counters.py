"""Tallies: how often what has happened, counted by the very statement that made it happen.

So they are exact with any number of processes, and whatever is killed. Rows are only ever added,
which makes nobody wait for anybody; now and then they are folded into few.
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
from jobsvc.db.models import tallies

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, float("inf"))
"""The upper bounds, in seconds, of the buckets that durations are counted in."""

FOLD_AT = 5000
"""How many rows may be there before they are folded."""


class Event(StrEnum):
    """What is counted."""

    ACCEPTED = "accepted"  # a job was stored
    STARTED = "started"  # an attempt began; seconds: how long the job had been due
    ENDED = "ended"  # an attempt ended, and its worker said how; seconds: how long it took
    LOST = "lost"  # an attempt ended since its worker was lost
    DROPPED = "dropped"  # a job that waited was cancelled, or expired; or one that runs was told to stop
    REVIVED = "revived"  # somebody had an ended job tried again


@dataclass(frozen=True)
class Count:
    """What the rows that a statement returns count as."""

    event: Any
    status: ColumnElement[Any] = field(default_factory=lambda: cast(null(), Text))
    seconds: ColumnElement[Any] = field(default_factory=lambda: cast(null(), Double))


_AS_ARRAY = f"('{{{', '.join(map(str, BOUNDS))}}}'::float8[])"
_bounds: ColumnElement[Any] = literal_column(_AS_ARRAY, ARRAY(Double))
_COLUMNS = ("event", "type", "queue", "status", "le", "number", "seconds")
_KEYS = text("1, 2, 3, 4, 5")


def counting(move: Any, tally: Callable[[Any], Count]) -> Select[Any]:
    """The statement `move`, which counts its rows as it goes and returns them as before.

    They have to have `type` and `queue`; `tally` says what they count as, by their columns.
    """
    moved = move.cte("moved")
    wanted = tally(moved.c)
    event = literal(str(wanted.event)) if isinstance(wanted.event, str) else wanted.event
    # Counts what is equal to a bound into the bucket above it.
    le = case((wanted.seconds.is_not(None), _bounds[func.width_bucket(wanted.seconds, _bounds) + 1]))
    counted = insert(tallies).from_select(
        _COLUMNS,
        select(event, moved.c.type, moved.c.queue, wanted.status, le, func.count(), func.sum(wanted.seconds)).group_by(
            _KEYS
        ),
    )
    return select(moved).add_cte(counted.cte("counted"))


def tallied() -> Sequence[Any]:
    """Everything that was ever counted: event, type, queue, status, le, number, seconds.

    `le` is the bound of BOUNDS below which the durations were; None where none were measured.
    """
    with transaction() as connection:
        return connection.execute(_sums(tallies)).all()


@retrying
def fold_tallies(at: int = FOLD_AT) -> int:
    """Put all tallies of the same kind together, if there are more than `at`; returns how many there were."""
    ctid: ColumnElement[Any] = literal_column("ctid")
    are_many = select(tallies.c.event).offset(at).limit(1).exists()
    # Any number of processes may do this at once: each takes what no other one has.
    free = select(ctid).select_from(tallies).where(are_many).with_for_update(skip_locked=True)
    gone = tallies.delete().where(ctid.in_(free)).returning(tallies).cte("gone")
    folded = insert(tallies).from_select(_COLUMNS, _sums(gone)).cte("folded")
    with transaction() as connection:
        return int(connection.scalar(select(func.count()).select_from(gone).add_cte(folded)) or 0)


def _sums(of: FromClause) -> Select[Any]:
    counts = (func.sum(of.c[name]).label(name) for name in _COLUMNS[5:])
    return select(*(of.c[name] for name in _COLUMNS[:5]), *counts).group_by(_KEYS)
