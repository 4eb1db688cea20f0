"""Manual actions on jobs: cancel, retry, delete. For all jobs that match a filter see `jobs.bulk`."""

from collections.abc import Sequence, Sized
from typing import Any
from uuid import UUID

from psycopg2.errors import UniqueViolation
from sqlalchemy import Connection, case, delete, func, null, select, update
from sqlalchemy.exc import IntegrityError

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, seconds_until
from jobsvc.errors import UniqueKeyTaken, WrongState
from jobsvc.jobs.claims import Dispatch, as_dispatch
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.queries import Versions, load, require_version
from jobsvc.jobs.webhooks import announce
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
        .returning(Job.id, Job.status, Job.type, Job.queue, Job.webhook_url)
    )
    cancelled = connection.execute(counting(cancel, lambda job: Count(Event.DROPPED, job.status))).all()
    announce(connection, [job.id for job in cancelled if job.webhook_url])
    return {job.id: Status(job.status) for job in cancelled}


@retrying
def retry(job_id: UUID, versions: Versions = None) -> tuple[Job, Dispatch]:
    """Run a FAILED or CANCELLED job again, at once, with all its retries.

    Keeps its history and its attempt count. Returns the job and its dispatch. Raises JobNotFound,
    WrongState, UniqueKeyTaken if another unfinished job has its unique key, and VersionMismatch if
    its version is not among `versions`.
    """
    with transaction() as connection:
        require_version(connection, job_id, versions)
        dispatches = retry_these(connection, [job_id], RETRYABLE)
        return _changed(connection, job_id, dispatches, how="retried", among=RETRYABLE), dispatches[0]


def retry_these(connection: Connection, job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Dispatch]:
    """Retry those of the jobs that have a status in `among`, within the caller's transaction; returns dispatches.

    Raises UniqueKeyTaken; the caller's transaction must be rolled back then.
    """
    locked = _lock(job_ids, among)
    restart = (
        update(Job)
        .where(Job.id == locked.c.id)
        .values(
            status=Status.PENDING,
            max_attempts=Job.attempts + 1 + func.cardinality(Job.retry_intervals),
            due_at=now(),
            dispatched_at=now(),  # the caller dispatches it, like a new job
            run_at=null(),
            expires_at=null(),
            expiry_met=null(),
            finished_at=null(),
            cancel_requested_at=null(),
            version=Job.version + 1,
        )
        .returning(Job, seconds_until(Job.due_at).label("wait"))
    )
    try:
        return [as_dispatch(job) for job in connection.execute(counting(restart, lambda job: Count(Event.REVIVED)))]
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation) and error.orig.diag.constraint_name == "jobs_unique_key":
            raise UniqueKeyTaken("another unfinished job has its uniqueKey now") from error
        raise


@retrying
def remove(job_id: UUID, versions: Versions = None) -> None:
    """Delete an ended job and its attempts.

    Raises JobNotFound, WrongState if it has not ended, and VersionMismatch if its version is not among `versions`.
    """
    with transaction() as connection:
        require_version(connection, job_id, versions)
        if not remove_these(connection, [job_id], ENDED):
            _changed(connection, job_id, [], how="deleted", among=ENDED)


def remove_these(connection: Connection, job_ids: Sequence[UUID], among: Sequence[Status]) -> Sequence[UUID]:
    """Delete those of the jobs that have a status in `among`, within the caller's transaction; returns their ids."""
    locked = _lock(job_ids, among)
    return connection.scalars(delete(Job).where(Job.id == locked.c.id).returning(Job.id)).all()


def unfinished(job_ids: Sequence[UUID]) -> set[UUID]:
    """Return the ids of the given jobs that are waiting or running."""
    with transaction() as connection:
        return set(connection.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.status.in_(CANCELLABLE))))


def _lock(job_ids: Sequence[UUID], among: Sequence[Status]) -> Any:
    # Ordered by id: two transactions that lock the same jobs must not wait for each other (deadlock).
    wanted = select(Job.id).where(Job.id.in_(job_ids), Job.status.in_(among))
    return wanted.order_by(Job.id).with_for_update().cte("locked")


def _changed(connection: Connection, job_id: UUID, changes: Sized, how: str, among: Sequence[Status]) -> Job:
    """Return the job after the action. Raises JobNotFound, and WrongState if it caused no changes."""
    job = load(connection, job_id)
    if not changes:
        raise WrongState(f"the job was {job.status}; only one that is {' or '.join(among)} can be {how}")
    return job
