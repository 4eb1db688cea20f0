"""The filter on jobs, used by the list, by counts, and by bulk cancel, retry and delete."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, literal_column, or_, select

from jobsvc.db.conditions import ERROR_LINE, ERROR_TYPE, HAS_ERROR
from jobsvc.db.dependency_models import Dependency
from jobsvc.db.models import Job
from jobsvc.handlers import DELIVERY
from jobsvc.jobs.ids import first_id
from jobsvc.states import Status

ID_MARGIN = timedelta(minutes=10)
"""Allowed difference between an id's time and `created_at`. The id range only shortens the scan; `created_at` decides.

Ids follow Postgres' clock within milliseconds. Versions before 0.2 used their host's clock.
"""


HAS_INDEX_BY_ID = tuple(status for status in Status if status not in (Status.PENDING, Status.COMPLETED))
"""The statuses that have a partial index on the id."""


FILTERED_COLUMNS: tuple[Any, ...] = (
    Job.id,
    Job.type,
    Job.queue,
    Job.status,
    Job.tags,
    Job.created_at,
    Job.due_at,
    Job.dispatched_at,
)
"""The columns that a subquery of jobs needs for `Filter.conditions`, besides those of the error and the payload."""


@dataclass(frozen=True)
class Filter:
    """Conditions on jobs, all of which must hold; an empty filter matches all but webhook deliveries.

    `statuses`: any of them; `tags`: all of them; `created_after` ≤ creation < `created_before`.
    `error`: first line of the error's message, at most 200 characters. `payload`: contained in the job's payload, as by
    Postgres' `@>`; it has no index, see `payload_search`. `depends_on`: among the job's dependencies.
    """

    statuses: Sequence[Status] = ()
    type: str | None = None
    queue: str | None = None
    tags: Sequence[str] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    error_type: str | None = None
    error: str | None = None
    payload: dict[str, Any] | None = None
    depends_on: UUID | None = None

    def conditions(self, job: Any = Job) -> list[ColumnElement[bool]]:
        """Return this filter as SQL conditions, to be joined by AND.

        job: the jobs, or an alias of a subquery of them, which must be the only table of the statement.
        """
        # Deliveries match only if their type is given.
        wanted = [job.type == self.type if self.type else job.type != DELIVERY]
        if self.statuses:
            wanted.append(or_(*(has_status(status, job) for status in sorted(set(self.statuses)))))
        if self.queue:
            wanted.append(job.queue == self.queue)
        if self.tags:
            wanted.append(job.tags.contains(list(self.tags)))
        if self.created_after:
            wanted.append(job.created_at >= self.created_after)
        if self.created_before:
            wanted.append(job.created_at < self.created_before)
        if self.payload is not None:
            wanted.append(job.payload.contains(self.payload))
        return [*wanted, *self.id_range(job), *self.error_conditions(), *self.dependency_conditions(job)]

    def id_range(self, job: Any = Job) -> list[ColumnElement[bool]]:
        """Return conditions on the id which hold for all jobs that were created at the wanted times."""
        bounds = []
        if self.created_after:
            bounds.append(job.id >= first_id((self.created_after - ID_MARGIN).timestamp()))
        if self.created_before:
            bounds.append(job.id < first_id((self.created_before + ID_MARGIN).timestamp()))
        return bounds

    def dependency_conditions(self, job: Any = Job) -> list[ColumnElement[bool]]:
        """Return the condition on the job's dependencies; their primary key has the dependents in the order of ids."""
        if self.depends_on is None:
            return []
        dependents = select(Dependency.dependent_id).where(Dependency.dependency_id == self.depends_on)
        return [job.id.in_(dependents)]

    def error_conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the error, in the words of their indexes."""
        wanted: list[ColumnElement[bool]] = []
        if self.error_type is not None:
            wanted.append(literal_column(ERROR_TYPE, Text) == self.error_type)
        if self.error is not None:
            wanted.append(literal_column(ERROR_LINE, Text) == self.error)
        return [literal_column(f"({HAS_ERROR})"), *wanted] if wanted else []


def has_status(status: Status, job: Any = Job) -> ColumnElement[bool]:
    """Return the condition on a status, worded so that a partial index fits; COMPLETED needs none."""
    is_it: ColumnElement[bool] = job.status == status
    if status != Status.PENDING:
        return is_it
    # Always true. Worded like the sweep's two indexes, so that Postgres can use them.
    is_dispatched_or_not = or_(
        job.dispatched_at >= job.due_at, job.dispatched_at.is_(None), job.dispatched_at < job.due_at
    )
    return is_it & is_dispatched_or_not
