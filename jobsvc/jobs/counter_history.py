"""The table of counters over time: by the minute for two hours, by 15 minutes for a week.

Its size depends on the number of types and queues, not of jobs. `fold_counters` adds rows to it.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
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
    literal_column,
    null,
    select,
    text,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import array

from jobsvc.db.counter_tables import counter_history, counters
from jobsvc.db.engine import retrying, transaction
from jobsvc.db.sql import now, seconds
from jobsvc.jobs.counters import BOUNDS, HISTORY_COLUMNS, by_minute

MINUTE = 60
QUARTER_HOUR = 15 * MINUTE
FINE_SECONDS = 2 * 3600
"""Longest window for which the history is kept by the minute."""

LONGEST_SECONDS = 7 * 86400
"""Longest window; for it, the history is kept by 15 minutes."""

COUNTS = ("accepted", "started", "completed", "failed", "retried")


def _bin(length: Any, moment: ColumnElement[Any]) -> ColumnElement[Any]:
    """Round a time down to a multiple of `length` seconds since the epoch."""
    found: ColumnElement[Any] = func.date_bin(seconds(length), moment, text("'epoch'"))
    return found


def _merged_minute(of: FromClause) -> ColumnElement[Any]:
    """Return the time at which a row is kept by now: its minute, or later the start of its 15 minutes."""
    quarter = _bin(QUARTER_HOUR, of.c.minute)
    is_fine = quarter + seconds(QUARTER_HOUR) > now() - seconds(FINE_SECONDS)
    return case((is_fine, of.c.minute), else_=quarter)


def _is_old(at: ColumnElement[Any]) -> ColumnElement[bool]:
    return at < now() - seconds(LONGEST_SECONDS + QUARTER_HOUR)


def _added(of: FromClause, *keys: ColumnElement[Any]) -> Select[Any]:
    """Select the keys, and the sums of the other columns of the history over the rows with equal keys."""

    def total(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.coalesce(func.sum(column), 0, type_=BigInteger)

    def histogram(name: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        counts = array([total(of.c[name][number]) for number in range(1, len(BOUNDS) + 1)])
        return counts.label(name), func.sum(of.c[f"{name}_seconds"]).label(f"{name}_seconds")

    counts = (total(of.c[name]).label(name) for name in COUNTS)
    return select(*keys, *counts, *histogram("wait"), *histogram("run")).group_by(*keys)


def _compact() -> Select[Any]:
    """Merge or delete the rows that need it and that no other process has locked; returns how many."""
    ctid: ColumnElement[Any] = literal_column("ctid")
    row = counter_history.c
    at = _merged_minute(counter_history)
    is_wrong = (func.count() > 1) | (func.min(row.minute) != at) | _is_old(at)
    wrong = select(at, row.type, row.queue).group_by(at, row.type, row.queue).having(is_wrong)
    # SKIP LOCKED: any number of processes may do this at once; none waits for another (deadlock).
    free = select(ctid).select_from(counter_history).where(tuple_(at, row.type, row.queue).in_(wrong))
    is_taken = ctid.in_(free.with_for_update(skip_locked=True))
    taken = counter_history.delete().where(is_taken).returning(counter_history).cte("taken")
    at = _merged_minute(taken)
    kept = _added(taken, at, taken.c.type, taken.c.queue).where(~_is_old(at))
    merged = insert(counter_history).from_select(HISTORY_COLUMNS, kept).cte("merged")
    return select(func.count()).select_from(taken).add_cte(merged)


_compact_all = _compact()  # built once, like the statements below: that takes milliseconds


@retrying
def compact_history() -> int:
    """Merge what is older than FINE_SECONDS to 15 minutes, and delete what is older than LONGEST_SECONDS.

    Merges rows of the same minute, too, since each fold of the counters adds its own.
    Returns how many rows were merged or deleted.
    """
    with transaction() as connection:
        return int(connection.scalar(_compact_all) or 0)


@lru_cache
def select_history(which: frozenset[str], by: frozenset[str]) -> Select[Any]:
    """Select the sums of each step and series, over the rows in the history and those not yet merged into it.

    Parameters: `start` and `end` in seconds since the epoch, the length `step` of a step, and `wanted_type` and
    `wanted_queue` if they are in `which`. by: the labels (type, queue) by which series differ; another label is null.
    """
    start, end = (func.to_timestamp(bindparam(name, type_=Double)) for name in ("start", "end"))

    def rows_of(table: FromClause) -> Select[Any]:
        of_names = (table.c[label] == bindparam(f"wanted_{label}") for label in which)
        return select(table).where(table.c.minute >= start, table.c.minute < end, *of_names)

    found = union_all(rows_of(counter_history), by_minute(rows_of(counters).subquery())).subquery()
    labels = [found.c[label] if label in by else cast(null(), Text).label(label) for label in ("type", "queue")]
    return _added(found, _bin(bindparam("step", type_=Integer), found.c.minute).label("at"), *labels)
