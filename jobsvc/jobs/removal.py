"""Deletes jobs on which others depend, unless a BLOCKED one does, and the edges of deleted jobs."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, delete, exists, select
from sqlalchemy.orm import aliased

from jobsvc.db.dependency_models import Dependency
from jobsvc.db.models import Job
from jobsvc.jobs.dependencies import lock_jobs
from jobsvc.jobs.edges import delete_edges
from jobsvc.states import Status

_dependent = aliased(Job, name="dependent")
_blocked_by = (
    select(_dependent.id)
    .join(Dependency, Dependency.dependent_id == _dependent.id)
    .where(_dependent.status == Status.BLOCKED)
)
is_not_needed = Job.has_dependents.is_(None) | ~exists(
    _blocked_by.where(Dependency.dependency_id == Job.id).correlate(Job)
)
"""Condition on a job: no BLOCKED job depends on it. Reads no table for a job without dependents."""


def find_blocked_by(connection: Connection, job_id: UUID) -> UUID | None:
    """Return the id of a BLOCKED job that depends on this one, None if there is none."""
    return connection.scalar(_blocked_by.where(Dependency.dependency_id == job_id).limit(1))


def remove_dependencies(
    connection: Connection, job_ids: Collection[UUID], among: Sequence[Status]
) -> Sequence[Row[UUID, list[UUID] | None]]:
    """Delete those of the jobs that have a status in `among`, and that no BLOCKED job depends on.

    Returns their id and depends_on.
    """
    # Race: locked by a statement of its own, so that the next one sees the dependents that were committed before.
    ended = [job_id for job_id, status in lock_jobs(connection, job_ids).items() if status in among]
    removal = delete(Job).where(Job.id.in_(ended), is_not_needed).returning(Job.id, Job.depends_on)
    return connection.execute(removal).all() if ended else []


def forget_edges(connection: Connection, removed: Iterable[Any]) -> None:
    """Delete what is stored about the dependencies of deleted jobs; their rows have id and depends_on."""
    delete_edges(connection, [(one, job.id) for job in removed for one in job.depends_on or ()])
