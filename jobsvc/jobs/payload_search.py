"""Finds jobs by what their payloads contain, without an index of payloads: so a plain job pays nothing for it.

Jobs are searched in portions, in the order of their ids. A portion reads a bounded number of rows through an index:
those with the wanted dependency, error, tags or statuses if there is an index of these by id, else all jobs. Payloads
are read only in rows that match the rest of the filter.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, BigInteger, Connection, Select, and_, case, cast, false, func, or_, select, union_all
from sqlalchemy.orm import aliased

from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import read_in_index_order
from jobsvc.jobs.filters import FILTERED_COLUMNS, HAS_INDEX_BY_ID, Filter, has_status
from jobsvc.states import Status

MAX_ROWS = 10_000
"""Number of rows of a portion. With small payloads, and a million jobs in the table, they take 15 to 25 ms."""

MAX_BYTES = 256 * 1024 * 1024
"""Estimated size of the payloads of a portion, which ends with the one that brings it there.

With payloads of 1 MiB a portion takes 40 to 200 ms.
"""

COMPRESSION = 100
"""Assumed compression ratio of values that Postgres has compressed. pglz reaches 90 with repeated text."""


@dataclass(frozen=True)
class Portion:
    """The ids of jobs found, in the order of the search, and the id after which it goes on; None at its end."""

    ids: Sequence[UUID]
    next: UUID | None


def find_newest(connection: Connection, wanted: Filter, limit: int, below: UUID | None) -> Portion:
    """Search one portion for up to `limit` jobs with ids less than `below`, newest first."""
    checked = _checked(wanted, start=below, is_newest_first=True)
    found = _read(connection, wanted, _found(checked).order_by(checked.c.id.desc()).limit(limit + 1))
    ids = [row.id for row in found if row.matches]
    if len(ids) > limit:
        return Portion(ids[:limit], ids[limit - 1])
    return Portion(ids, found[-1].id if found and found[-1].is_end else None)


def portions(wanted: Filter, after: UUID | None = None) -> Iterator[Portion]:
    """Yield the portions of a search through all jobs with ids greater than `after`, oldest first."""
    while True:
        checked = _checked(wanted, start=after, is_newest_first=False)
        with transaction() as connection:
            found = _read(connection, wanted, _found(checked).order_by(checked.c.id))
        after = found[-1].id if found and found[-1].is_end else None
        yield Portion([row.id for row in found if row.matches], after)
        if after is None:
            return


def count_found(wanted: Filter) -> tuple[dict[Status, int], bool]:
    """Return the number of jobs of each status in the newest portion, and whether that is all jobs."""
    checked = _checked(wanted, start=None, is_newest_first=True)
    numbers = select(
        checked.c.status,
        func.count().filter(checked.c.matches).label("found"),
        func.bool_or(checked.c.is_end).label("has_more"),
    )
    with transaction() as connection:
        rows = _read(connection, wanted, numbers.group_by(checked.c.status))
    return {Status(row.status): row.found for row in rows}, not any(row.has_more for row in rows)


def _read(connection: Connection, wanted: Filter, portion: Select[Any]) -> Sequence[Any]:
    if not wanted.tags:  # their index has no order
        connection.execute(read_in_index_order)
    return connection.execute(portion).all()


def _found(checked: CTE) -> Select[Any]:
    """Select the jobs found, and the last row of the portion if others may follow it."""
    return select(checked.c.id, checked.c.matches, checked.c.is_end).where(or_(checked.c.matches, checked.c.is_end))


def _checked(wanted: Filter, start: UUID | None, is_newest_first: bool) -> CTE:
    """Select the rows of a portion that starts beyond this id: id, status, `matches`, and `is_end` for the last one."""
    rows = _rows(wanted, start, is_newest_first)
    job = aliased(Job, rows)
    fits = and_(*replace(wanted, payload=None, depends_on=None).conditions(job))
    # pg_column_size and pg_column_compression don't read TOASTed values.
    ratio = case((func.pg_column_compression(rows.c.payload).is_not(None), COMPRESSION), else_=1)
    weight = case((fits, cast(func.pg_column_size(rows.c.payload) * ratio, BigInteger)), else_=0).label("weight")
    order = rows.c.id.desc() if is_newest_first else rows.c.id
    weighed = select(
        rows.c.id,
        rows.c.status,
        rows.c.payload,
        fits.label("fits"),
        weight,
        func.sum(weight).over(order_by=order).label("total"),
        func.row_number().over(order_by=order).label("number"),
    ).subquery("weighed")
    return (
        select(
            weighed.c.id,
            weighed.c.status,
            case((weighed.c.fits, weighed.c.payload.contains(wanted.payload)), else_=false()).label("matches"),
            or_(weighed.c.number == MAX_ROWS, weighed.c.total >= MAX_BYTES).label("is_end"),
        )
        .where(weighed.c.total - weighed.c.weight < MAX_BYTES)
        .cte("checked")
        .prefix_with("MATERIALIZED")
    )


def _rows(wanted: Filter, start: UUID | None, is_newest_first: bool) -> Any:
    """Select the rows of a portion, with the columns of a filter."""
    order = Job.id.desc() if is_newest_first else Job.id
    beyond = [] if start is None else [Job.id < start if is_newest_first else Job.id > start]
    all_rows = (
        select(*FILTERED_COLUMNS, Job.error, Job.payload)
        .where(*wanted.id_range(), *beyond)
        .order_by(order)
        .limit(MAX_ROWS)
    )
    if conditions := wanted.dependency_conditions() or wanted.error_conditions():
        return all_rows.where(*conditions).subquery("portion")
    if wanted.tags:
        return all_rows.where(Job.tags.contains(list(wanted.tags))).subquery("portion")
    if not wanted.statuses or not set(wanted.statuses) <= set(HAS_INDEX_BY_ID):
        return all_rows.subquery("portion")
    parts = [select(all_rows.where(has_status(status)).subquery()) for status in sorted(set(wanted.statuses))]
    together = union_all(*parts).subquery()
    first = together.c.id.desc() if is_newest_first else together.c.id
    return select(together).order_by(first).limit(MAX_ROWS).subquery("portion")
