"""The neighbours of a job in its workflow: jobs that it depends on, and jobs that depend on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, func, select

from jobsvc.db.dependency_models import Dependency
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.jobs.counts import MAX_COUNTED, Counted, count

MAX_NEIGHBOURS = 10
"""Maximum number of jobs read on each side."""


@dataclass(frozen=True)
class Neighbour:
    """A job of a graph. type, status: None if it was deleted."""

    id: UUID
    type: str | None
    status: str | None


@dataclass(frozen=True)
class Graph:
    """The first jobs that a job depends on, the first that depend on it, and how many more there are of each."""

    dependencies: Sequence[Neighbour]
    more_dependencies: int
    dependents: Sequence[Neighbour]
    more_dependents: Counted


def read_graph(job: Job) -> Graph | None:
    """Return the neighbours of a job, None if it has none. A job outside of workflows causes no query."""
    depends_on = job.depends_on or []
    if not depends_on and not job.has_dependents:
        return None
    dependents: Sequence[UUID] = []
    total = Counted(0, is_complete=True)
    of_job = select(Dependency.dependent_id).where(Dependency.dependency_id == job.id)
    with transaction() as connection:
        if job.has_dependents:
            dependents = connection.scalars(of_job.order_by(Dependency.dependent_id).limit(MAX_NEIGHBOURS)).all()
            rows = of_job.limit(MAX_COUNTED + 1).subquery()
            number = connection.scalar(select(func.count()).select_from(rows)) or 0
            total = count(number - len(dependents), is_complete=number <= MAX_COUNTED)
        shown = depends_on[:MAX_NEIGHBOURS]
        if not shown and not dependents:  # they were deleted
            return None
        return Graph(
            dependencies=_neighbours(connection, shown),
            more_dependencies=len(depends_on) - len(shown),
            dependents=_neighbours(connection, dependents),
            more_dependents=total,
        )


def _neighbours(connection: Connection, job_ids: Iterable[UUID]) -> list[Neighbour]:
    found = connection.execute(select(Job.id, Job.type, Job.status).where(Job.id.in_(job_ids)))
    known = {row.id: Neighbour(row.id, row.type, row.status) for row in found}
    return [known.get(job_id, Neighbour(job_id, None, None)) for job_id in job_ids]
