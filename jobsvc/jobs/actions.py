"""Manual actions on one job or on all that match a filter: cancel, retry, delete.

Actions on many jobs work in batches. Each batch is one transaction. If a batch fails, the earlier ones stay
committed; calling again processes the rest. Jobs created after the first batch was read are not included.
"""

from collections.abc import Iterator, Sequence, Sized
from contextlib import suppress
from typing import Any
from uuid import UUID

from psycopg2.errors import UniqueViolation
from sqlalchemy import Connection, Row, case, delete, exists, func, null, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from jobsvc.db.conditions import IS_UNFINISHED
from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, seconds_until
from jobsvc.errors import UniqueKeyTaken, WrongState
from jobsvc.jobs.claims import Dispatch, as_dispatch
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.queries import Versions, load, require_version
from jobsvc.jobs.webhooks import announce
from jobsvc.states import ENDED, MOVES, WAITING, Status

BATCH = 1000
"""Maximum number of jobs changed by one transaction."""

CANCELLABLE = tuple(status for status in Status if Status.CANCELLED in MOVES[status])
RETRYABLE = tuple(status for status in Status if MOVES[status] == {Status.PENDING})


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
        delete_ended = delete(Job).where(Job.id == job_id, Job.status.in_(ENDED))
        if not connection.execute(delete_ended).rowcount:
            _changed(connection, job_id, [], how="deleted", among=ENDED)


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


_holder = aliased(Job, name="holder")
# IS_UNFINISHED has bare column names; in this subquery they resolve to the holder's columns.
_key_is_taken = exists().where(
    _holder.type == Job.type,
    _holder.unique_key == Job.unique_key,
    text(IS_UNFINISHED),
)


def cancel_all(wanted: Filter) -> Iterator[dict[UUID, Status]]:
    """Cancel all matching unfinished jobs; yields the new status by job id of each committed batch."""
    among = _allowed(wanted, CANCELLABLE)
    for batch in _batches(wanted, among):
        yield _cancel([job.id for job in batch], among)


@retrying
def _cancel(job_ids: Sequence[UUID], among: Sequence[Status]) -> dict[UUID, Status]:
    with transaction() as connection:
        return cancel_these(connection, job_ids, among)


def retry_all(wanted: Filter) -> Iterator[list[Dispatch]]:
    """Retry all matching FAILED and CANCELLED jobs; yields the dispatches of each committed batch.

    Skips jobs whose unique key another unfinished job has. Of several with the same key, retries the oldest.
    """
    among = _allowed(wanted, RETRYABLE)
    for batch in _batches(wanted, among):
        first: dict[tuple[Any, ...], UUID] = {}
        for job in batch:
            if not job.key_is_taken:
                first.setdefault((job.type, job.unique_key) if job.unique_key else (job.id,), job.id)
        yield _retry(list(first.values()), among)


def retry_listed(job_ids: Sequence[UUID]) -> Iterator[list[Dispatch]]:
    """Retry the given jobs that are FAILED or CANCELLED; yields the dispatches of each committed batch.

    Skips ids without a job, and jobs whose unique key another unfinished job has.
    """
    for at in range(0, len(job_ids), BATCH):
        yield _retry(job_ids[at : at + BATCH], RETRYABLE)


def count_cancellable(wanted: Filter, at_most: int) -> int:
    """Return how many jobs `cancel_all` would cancel now, counted up to `at_most`."""
    return _count(wanted, CANCELLABLE, at_most)


def count_retryable(wanted: Filter, at_most: int) -> int:
    """Return how many jobs match `retry_all` now, including those whose key is taken, counted up to `at_most`."""
    return _count(wanted, RETRYABLE, at_most)


def _count(wanted: Filter, statuses: Sequence[Status], at_most: int) -> int:
    among = _allowed(wanted, statuses)
    meant = select(Job.id).where(*wanted.conditions(), Job.status.in_(among)).limit(at_most).subquery()
    with transaction() as connection:
        return connection.scalar(select(func.count()).select_from(meant)) or 0


def _retry(job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Dispatch]:
    try:
        return _retry_together(job_ids, among)
    except UniqueKeyTaken:  # race: taken since the batch was read. Retry one by one, without that job
        done: list[Dispatch] = []
        for job_id in job_ids:
            with suppress(UniqueKeyTaken):
                done += _retry_together([job_id], among)
        return done


@retrying
def _retry_together(job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Dispatch]:
    with transaction() as connection:
        return retry_these(connection, job_ids, among)


def _allowed(wanted: Filter, statuses: Sequence[Status]) -> list[Status]:
    return [status for status in statuses if not wanted.statuses or status in wanted.statuses]


def _batches(wanted: Filter, among: Sequence[Status]) -> Iterator[Sequence[Row[UUID, str, str | None, bool]]]:
    """Yield batches of matching jobs in the order of their ids, each as of the time when it was read."""
    first_read_at, after = None, UUID(int=0)
    while among:
        with transaction() as connection:
            first_read_at = first_read_at or connection.scalar(select(now()))
            batch = connection.execute(
                select(Job.id, Job.type, Job.unique_key, _key_is_taken.label("key_is_taken"))
                .where(*wanted.conditions(), Job.status.in_(among), Job.id > after, Job.created_at <= first_read_at)
                .order_by(Job.id)
                .limit(BATCH)
            ).all()
        if not batch:
            return
        yield batch
        after = batch[-1].id
