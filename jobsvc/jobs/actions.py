"""Manual actions on jobs: cancel, retry, delete. For all jobs that match a filter see `jobs.bulk`."""

from collections.abc import Sequence, Sized
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, case, delete, func, null, select, update

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now
from jobsvc.errors import WrongState
from jobsvc.jobs.claims import Dispatch
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.queries import Versions, load, require_version
from jobsvc.jobs.releases import follow_ends
from jobsvc.jobs.removal import find_blocked_by, forget_edges, remove_dependencies
from jobsvc.jobs.retries import retry_these
from jobsvc.states import ENDED, MOVES, WAITING, Status

CANCELLABLE = tuple(status for status in Status if Status.CANCELLED in MOVES[status])
RETRYABLE = tuple(status for status in ENDED if MOVES[status])


@retrying
def cancel(job_id: UUID, versions: Versions = None) -> Job:
    """Cancel a waiting job at once, or request the cancel of a running one.

    Returns the job after the change. Raises JobNotFound, WrongState if it has ended, and VersionMismatch if
    its version is not among `versions`.
    """
    with transaction() as connection:
        require_version(connection, job_id, versions)
        cancelled = cancel_these(connection, [job_id], CANCELLABLE)
        return _changed(connection, job_id, cancelled, how="cancelled", among=CANCELLABLE)


def cancel_these(connection: Connection, job_ids: Sequence[UUID], among: Sequence[Status]) -> dict[UUID, Status]:
    """Cancel those of the jobs that have a status in `among`, within the caller's transaction.

    Returns the new status of each: CANCELLED, or PROCESSING if its attempt is yet to be stopped.
    """
    waits = Job.status.in_(WAITING)
    locked = _lock(job_ids, among)
    cancel = (
        update(Job)
        .where(Job.id == locked.c.id)
        .values(
            status=case((waits, Status.CANCELLED), else_=Job.status),
            finished_at=case((waits, now()), else_=null()),
            cancel_requested_at=case((waits, null()), else_=func.coalesce(Job.cancel_requested_at, now())),
            version=Job.version + case((waits, 1), else_=0),
        )
        .returning(Job.id, Job.status, Job.type, Job.queue, Job.webhook_url, Job.has_dependents)
    )
    cancelled = connection.execute(counting(cancel, lambda job: Count(Event.DROPPED, job.status))).all()
    follow_ends(connection, cancelled)
    return {job.id: Status(job.status) for job in cancelled}


@retrying
def retry(job_id: UUID, versions: Versions = None) -> tuple[Job, Dispatch | None]:
    """Run a FAILED or CANCELLED job again, with all its retries: at once, or when its dependencies have ended.

    Keeps its history and its attempt count. Returns the job and its dispatch, None if it is BLOCKED. Raises
    JobNotFound, WrongState, UniqueKeyTaken if another unfinished job has its unique key, and VersionMismatch if its
    version is not among `versions`.
    """
    with transaction() as connection:
        require_version(connection, job_id, versions)
        retries = retry_these(connection, [job_id], RETRYABLE)
        if cause := retries.refused.get(job_id):
            raise WrongState(f"the job {cause.job_id}, on which it depends, was {cause.status}; retry that one first")
        return _changed(connection, job_id, retries.done, how="retried", among=RETRYABLE), retries.done[0].dispatch


@retrying
def remove(job_id: UUID, versions: Versions = None) -> None:
    """Delete an ended job and its attempts.

    Raises JobNotFound, WrongState if it has not ended or a BLOCKED job depends on it, and VersionMismatch if its
    version is not among `versions`.
    """
    with transaction() as connection:
        require_version(connection, job_id, versions)
        if not remove_these(connection, [job_id], ENDED):
            job = load(connection, job_id)
            if job.status in ENDED and (blocked := find_blocked_by(connection, job_id)):
                raise WrongState(f"the job {blocked}, which is BLOCKED, depends on it")
            _changed(connection, job_id, [], how="deleted", among=ENDED)


def remove_these(connection: Connection, job_ids: Sequence[UUID], among: Sequence[Status]) -> Sequence[UUID]:
    """Delete those of the jobs that have a status in `among`, within the caller's transaction; returns their ids.

    Leaves those that a BLOCKED job depends on.
    """
    locked = _lock(job_ids, among, Job.has_dependents.is_(None))
    removal = delete(Job).where(Job.id == locked.c.id).returning(Job.id, Job.depends_on)
    removed = connection.execute(removal).all()
    if left := set(job_ids) - {job.id for job in removed}:
        removed = [*removed, *remove_dependencies(connection, left, among)]
    forget_edges(connection, removed)
    return [job.id for job in removed]


def unfinished(job_ids: Sequence[UUID]) -> set[UUID]:
    """Return the ids of the given jobs that are waiting or running."""
    with transaction() as connection:
        return set(connection.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.status.in_(CANCELLABLE))))


def _lock(job_ids: Sequence[UUID], among: Sequence[Status], *conditions: Any) -> Any:
    # Ordered by id: two transactions that lock the same jobs must not wait for each other (deadlock).
    wanted = select(Job.id).where(Job.id.in_(job_ids), Job.status.in_(among), *conditions)
    return wanted.order_by(Job.id).with_for_update().cte("locked")


def _changed(connection: Connection, job_id: UUID, changes: Sized, how: str, among: Sequence[Status]) -> Job:
    """Return the job after the action. Raises JobNotFound, and WrongState if it caused no changes."""
    job = load(connection, job_id)
    if not changes:
        raise WrongState(f"the job was {job.status}; only one that is {' or '.join(among)} can be {how}")
    return job
