"""Bounded counts for pages that are loaded often: they take milliseconds, however many jobs there are.

A count reads at most MAX_COUNTED + 1 rows of each part of the table (a status, a queue in RQ, the newest jobs). If a
part has more rows, the result is a lower bound, and not exact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, literal, select, text, union_all
from sqlalchemy.orm import aliased

from jobsvc.db.conditions import IS_DISPATCHED, IS_TO_DISPATCH
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, read_in_index_order
from jobsvc.jobs.filters import FILTERED_COLUMNS, HAS_INDEX_BY_ID, Filter, has_status
from jobsvc.jobs.payload_search import count_found, portions
from jobsvc.states import Status

MAX_COUNTED = 10_000
"""Largest number that a count returns, and the number of rows that it reads of each part of the table."""

_NEWEST, _TAGGED, _IN_RQ, _TO_DISPATCH = "newest", "tagged", "in RQ", "to dispatch"


@dataclass(frozen=True)
class Counted:
    """A number of jobs, at most MAX_COUNTED. If not `is_complete`, there may be more."""

    number: int
    is_complete: bool

    def __str__(self) -> str:
        if not self.number and not self.is_complete:
            return "?"
        return f"{self.number:,}{'' if self.is_complete else '+'}"

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(self.number + other.number, self.is_complete and other.is_complete)


def count_by_status(wanted: Filter) -> dict[Status, Counted]:
    """Count the jobs of each status that match the filter, except for its statuses, which are ignored.

    If a status has more than MAX_COUNTED jobs, only its newest ones are searched. For COMPLETED, and for many PENDING
    jobs, the newest jobs of all statuses are searched; with a dependency or an error in the filter, the newest jobs
    with that; with tags, any jobs with these; with a payload, the newest portion of the jobs in which it is searched.
    """
    if wanted.payload is not None:
        numbers, is_complete = count_found(replace(wanted, statuses=()))
        return {status: count(numbers.get(status, 0), is_complete) for status in Status}
    parts = _parts(wanted)
    with transaction() as connection:
        if set(parts) != {_TAGGED}:
            connection.execute(read_in_index_order)
        found = connection.execute(union_all(*(_count_part(name, part, wanted) for name, part in parts.items()))).all()
    return {status: _best(found, status, parts) for status in Status}


def _parts(wanted: Filter) -> dict[str, Select[Any]]:
    """Return the rows of each part of the table that is searched, by name."""
    newest = bounded(*wanted.id_range(), *wanted.error_conditions()).order_by(Job.id.desc())
    if conditions := wanted.dependency_conditions():
        return {_NEWEST: bounded(*wanted.id_range(), *conditions).add_columns(Job.error).order_by(Job.id.desc())}
    if wanted.error_conditions():
        return {_NEWEST: newest}
    if wanted.tags:
        return {_TAGGED: bounded(*wanted.id_range(), Job.tags.contains(list(wanted.tags)))}
    return {
        _NEWEST: newest,
        _IN_RQ: in_rq(wanted.queue),
        _TO_DISPATCH: to_dispatch(),
        **{status: newest.where(has_status(status)) for status in HAS_INDEX_BY_ID},
    }


def bounded(*conditions: Any) -> Select[Any]:
    """Select MAX_COUNTED + 1 jobs; with the order of an index that fits the conditions, no more rows are read."""
    return select(*FILTERED_COLUMNS).where(*conditions).limit(MAX_COUNTED + 1)


def in_rq(queue: str | None) -> Select[Any]:
    """Select waiting jobs that are dispatched or withheld, of one queue or all."""
    # `between`: with `=` Postgres would ignore the order, and might read the whole table.
    of_queue = [] if queue is None else [Job.queue.between(queue, queue)]
    return bounded(text(IS_DISPATCHED), *of_queue).order_by(Job.queue, Job.dispatched_at)


def to_dispatch() -> Select[Any]:
    """Select waiting jobs that are due but not dispatched. A PENDING job is always due."""
    return bounded(text(IS_TO_DISPATCH), Job.due_at <= now()).order_by(Job.due_at)


def _count_part(name: str, part: Select[Any], wanted: Filter) -> Select[Any]:
    """Select the number of rows of a part, and of those that match the filter, by status."""
    job = aliased(Job, part.subquery())
    # The part has only rows with the wanted dependency, else only rows with the wanted error.
    rest = replace(wanted, statuses=(), depends_on=None)
    matches = (rest if wanted.depends_on else replace(rest, error_type=None, error=None)).conditions(job)
    numbers: tuple[Any, ...] = (func.count().label("rows"), func.count().filter(*matches).label("matching"))
    return select(literal(name).label("part"), job.status, *numbers).group_by(job.status)


def _best(found: Sequence[Row[Any]], status: Status, parts: Iterable[str]) -> Counted:
    """Return the best count of a status: an exact one if a part has all of its jobs."""
    sources: list[tuple[str, ...]] = [(_NEWEST,), (_TAGGED,)]
    if status == Status.PENDING:
        sources.append((_IN_RQ, _TO_DISPATCH))
    elif status in HAS_INDEX_BY_ID:
        sources.append((status,))
    counts = [
        count(
            sum(row.matching for row in found if row.part in names and row.status == status),
            is_complete=all(sum(row.rows for row in found if row.part == name) <= MAX_COUNTED for name in names),
        )
        for names in sources
        if set(names) <= set(parts)
    ]
    return max(counts, key=lambda one: (one.is_complete, one.number))


def count(number: int, is_complete: bool) -> Counted:
    """Return the count, at most MAX_COUNTED."""
    return Counted(min(number, MAX_COUNTED), is_complete and number <= MAX_COUNTED)


def count_newer(wanted: Filter, than: UUID, at_most: int = 100) -> int:
    """Return how many matching jobs have a greater id than this one, up to `at_most`.

    Searches the MAX_COUNTED jobs after it; for a payload, the first portion of jobs after it.
    """
    if wanted.payload is not None:
        return min(len(next(portions(wanted, than)).ids), at_most)
    after = bounded(Job.id > than).add_columns(Job.error).order_by(Job.id)
    job = aliased(Job, after.subquery())
    newer = select(job.id).where(*wanted.conditions(job)).limit(at_most).subquery()
    with transaction() as connection:
        connection.execute(read_in_index_order)
        return connection.scalar(select(func.count()).select_from(newer)) or 0
