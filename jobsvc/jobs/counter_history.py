"""The table of counters over time: by the minute for two hours, by 15 minutes for a week.

Its size depends on the number of types and queues, not of jobs. `fold_counters` adds rows to it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
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


@retrying
def compact_history() -> int:
    """Merge what is older than FINE_SECONDS to 15 minutes, and delete what is older than LONGEST_SECONDS.

    Merges rows of the same minute, too, since each fold of the counters adds its own.
    Returns how many rows were merged or deleted.
    """
    ctid: ColumnElement[Any] = literal_column("ctid")
    at, type_, queue = _merged_minute(counter_history), counter_history.c.type, counter_history.c.queue
    is_wrong = (func.count() > 1) | (func.min(counter_history.c.minute) != at) | _is_old(at)
    wrong = select(at, type_, queue).group_by(at, type_, queue).having(is_wrong)
    # SKIP LOCKED: any number of processes may do this at once; none waits for another (deadlock).
    free = select(ctid).select_from(counter_history).where(tuple_(at, type_, queue).in_(wrong))
    is_taken = ctid.in_(free.with_for_update(skip_locked=True))
    taken = counter_history.delete().where(is_taken).returning(counter_history).cte("taken")
    at = _merged_minute(taken)
    kept = _added(taken, at, taken.c.type, taken.c.queue).where(~_is_old(at))
    merged = insert(counter_history).from_select(HISTORY_COLUMNS, kept).cte("merged")
    with transaction() as connection:
        return int(connection.scalar(select(func.count()).select_from(taken).add_cte(merged)) or 0)


def _bin(length: int, moment: ColumnElement[Any]) -> ColumnElement[Any]:
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


def select_history(start: int, end: int, step: int, which: Mapping[str, str], by: Collection[str]) -> Select[Any]:
    """Select the sums of each step and series, over the rows in the history and those not yet merged into it.

    start, end, step: seconds since the epoch, and the length of a step. which: names that type and queue must have.
    by: the labels (type, queue) by which series differ; another label is null.
    """

    def rows_of(table: FromClause) -> Select[Any]:
        minute = table.c.minute
        in_window = minute >= func.to_timestamp(start), minute < func.to_timestamp(end)
        return select(table).where(*in_window, *(table.c[label] == name for label, name in which.items()))

    found = union_all(rows_of(counter_history), by_minute(rows_of(counters).subquery())).subquery()
    labels = [found.c[label] if label in by else cast(null(), Text).label(label) for label in ("type", "queue")]
    return _added(found, _bin(step, found.c.minute).label("at"), *labels)


def _added(of: FromClause, *keys: ColumnElement[Any]) -> Select[Any]:
    """Select the keys, and the sums of the other columns of the history over the rows with equal keys."""

    def total(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(func.coalesce(func.sum(column), 0), BigInteger)

    def histogram(name: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        counts = array([total(of.c[name][number]) for number in range(1, len(BOUNDS) + 1)])
        return counts.label(name), func.sum(of.c[f"{name}_seconds"]).label(f"{name}_seconds")

    counts = (total(of.c[name]).label(name) for name in COUNTS)
    return select(*keys, *counts, *histogram("wait"), *histogram("run")).group_by(*keys)
