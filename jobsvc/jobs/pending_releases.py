"""Releases what the end of a job has left: dependents beyond its first 1,000, and those that no process released."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, delete, exists, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from jobsvc.db.dependency_models import Dependency, PendingRelease
from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.jobs.edges import Edge
from jobsvc.jobs.releases import Ended, release
from jobsvc.states import ENDED, Status

CHECKED = 10_000
"""Number of edges that one call of `find_unreleased` reads: some 20 ms."""

CANDIDATES = 10
"""Number of pending releases among which a relay takes one that no other process has locked."""


@retrying
def release_pending() -> bool:
    """Release up to MAX_DEPENDENTS dependents of a job for which `release` left some.

    Returns False if there is no such job, or if other processes are at it. A job that was retried by hand
    releases nothing until it ends again.
    """
    with transaction() as connection:
        found = _lock_pending(connection)
        if found is None:
            return False
        job_id, status = found
        # A statement of its own: what it reads is what the last holder of the lock left.
        taken = delete(PendingRelease).where(PendingRelease.job_id == job_id).returning(PendingRelease.after)
        left = connection.execute(taken).one_or_none()
        if left is not None and status in ENDED:
            release(connection, [Ended(job_id, status, left.after)])
    return True


def _lock_pending(connection: Connection) -> tuple[UUID, Status] | None:
    """Lock a job with a pending release; a job that was deleted counts as COMPLETED: nothing waits for it."""
    # The job, not the row of its release: a retry of the job locks that first (deadlock).
    pending = select(PendingRelease.job_id).order_by(PendingRelease.job_id).limit(CANDIDATES)
    ended = select(Job.id, Job.status).where(Job.id.in_(pending)).order_by(Job.id).limit(1)
    if found := connection.execute(ended.with_for_update(skip_locked=True, key_share=True)).one_or_none():
        return found.id, Status(found.status)
    is_deleted = ~exists().where(Job.id == PendingRelease.job_id)
    deleted = select(PendingRelease.job_id).where(is_deleted).limit(1).with_for_update(skip_locked=True)
    job_id = connection.scalar(deleted)
    return (job_id, Status.COMPLETED) if job_id else None


NO_EDGE: Edge = (UUID(int=0), UUID(int=0))
"""Where `find_unreleased` starts: before the first edge."""


@retrying
def find_unreleased(after: Edge = NO_EDGE) -> Edge:
    """Find ended or deleted jobs that still block others, for `release_pending`; returns where to go on.

    Reads CHECKED edges after this one. Needed after a process of an earlier version has ended or deleted jobs: it
    releases nothing.
    """
    edge = tuple_(Dependency.dependency_id, Dependency.dependent_id)
    part = select(Dependency).where(edge > tuple_(*after)).order_by(*edge.clauses).limit(CHECKED).cte("part")
    dependent = aliased(Job)
    unreleased: Select[Any] = (
        select(part.c.dependency_id)
        .distinct()
        .join(dependent, (dependent.id == part.c.dependent_id) & (dependent.status == Status.BLOCKED))
        .outerjoin(Job, Job.id == part.c.dependency_id)
        .where(part.c.is_open, Job.id.is_(None) | Job.status.in_(ENDED))
    )
    with transaction() as connection:
        last = connection.execute(
            select(part.c.dependency_id, part.c.dependent_id).offset(CHECKED - 1).limit(1)
        ).one_or_none()
        connection.execute(insert(PendingRelease).from_select(["job_id"], unreleased).on_conflict_do_nothing())
    return tuple(last) if last else NO_EDGE
