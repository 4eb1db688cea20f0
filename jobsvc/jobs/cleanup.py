"""Fails jobs that expired before they started, and deletes old ended jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, case, delete, exists, func, null, select, update

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Attempt, AttemptLines, Job
from jobsvc.db.sql import now, seconds
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.ids import first_id
from jobsvc.jobs.queries import MAX_ATTEMPTS
from jobsvc.jobs.releases import follow_ends
from jobsvc.jobs.removal import forget_edges, is_not_needed
from jobsvc.states import ENDED, WAITING, Status

SCANNED_PER_DELETED = 10
"""Rows scanned per row to delete, at most, so that old jobs which still wait delay a pass little."""

LOWEST = UUID(int=0)

TRIM_EVERY = 100
"""Number of starts of a job between two deletions of its attempts that are no longer shown."""


@dataclass(frozen=True)
class Pruned:
    """The ids that a pass deleted, and the id after which the next pass starts: LOWEST after the last row."""

    job_ids: list[UUID]
    reached: UUID


@retrying
def prune(older_than: float, limit: int, after: UUID = LOWEST) -> Pruned:
    """Delete up to `limit` jobs that ended more than `older_than` seconds ago, and their attempts.

    Leaves what a BLOCKED job depends on. Scans ids above `after`, at most SCANNED_PER_DELETED times `limit`. Ids are
    UUIDv7, ordered by creation: the scan stops at that time, since a job created later can't have ended before it.
    """
    with transaction() as connection:
        ended_by = connection.execute(select(func.extract("epoch", now() - seconds(older_than)))).scalar_one()
        since = first_id(float(ended_by))
        candidates = select(Job.id).where(Job.id > after, Job.id < since).order_by(Job.id)
        last = connection.scalar(candidates.offset(limit * SCANNED_PER_DELETED - 1).limit(1))
        old = (
            candidates.where(Job.id <= (last or since))
            .where(Job.status.in_(ENDED), Job.finished_at < now() - seconds(older_than), is_not_needed)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("old")
        )
        removal = delete(Job).where(Job.id == old.c.id).returning(Job.id, Job.depends_on)
        removed = connection.execute(removal).all()
        forget_edges(connection, removed)
    deleted = [job.id for job in removed]
    return Pruned(deleted, max(deleted) if len(deleted) == limit else last or LOWEST)


def trim_history(connection: Connection, job_id: UUID, fence: int) -> None:
    """Delete a job's attempts that are no longer shown, so that endless snoozing doesn't fill the table.

    fence: of the attempt that is being finished; only each TRIM_EVERY-th does something.
    """
    if fence <= MAX_ATTEMPTS or fence % TRIM_EVERY:
        return
    newest = select(Attempt.fence).where(Attempt.job_id == job_id).order_by(Attempt.fence.desc())
    oldest = connection.scalar(newest.offset(MAX_ATTEMPTS - 1).limit(1))
    if oldest is not None:
        for table in (Attempt, AttemptLines):
            connection.execute(delete(table).where(table.job_id == job_id, table.fence < oldest))


# Every attempt after which its job waits again has left a row.
_has_started = exists().where(Attempt.job_id == Job.id)


@retrying
def expire(limit: int) -> int:
    """Fail up to `limit` expired jobs that no attempt has started; returns how many expired jobs were found.

    A job that an attempt has started has its expiry marked as met. `finish` does so too, but a process of
    version 0.1.0 that runs beside this one doesn't.
    """
    late = (
        select(Job.id, _has_started.label("has_started"))
        .where(Job.status.in_(WAITING), Job.expires_at <= now())
        .limit(limit)
        .with_for_update(skip_locked=True, of=Job)
    )
    with transaction() as connection:
        found = connection.execute(late).all()
        _fail(connection, [job.id for job in found if not job.has_started])
        _lift_expiry(connection, [job.id for job in found if job.has_started])
    return len(found)


def _fail(connection: Connection, job_ids: Sequence[UUID]) -> None:
    if not job_ids:
        return
    error = func.jsonb_build_object(
        "type", "Expired", "message", "not started before it expired", "attempt", Job.attempts
    )
    fail = (
        update(Job)
        .where(Job.id.in_(job_ids))
        .values(status=Status.FAILED, finished_at=now(), error=error, version=Job.version + 1)
        .returning(Job.id, Job.status, Job.type, Job.queue, Job.webhook_url, Job.has_dependents)
    )
    expired = connection.execute(counting(fail, lambda job: Count(Event.DROPPED, job.status))).all()
    follow_ends(connection, expired)


def _lift_expiry(connection: Connection, job_ids: Sequence[UUID]) -> None:
    if job_ids:
        # `start` may have refused the dispatched job: dispatch it again. A withheld job stays withheld.
        again = case((func.isfinite(Job.dispatched_at), null()), else_=Job.dispatched_at)
        lift = update(Job).where(Job.id.in_(job_ids))
        met = {"expires_at": null(), "expiry_met": Job.expires_at}
        connection.execute(lift.values(**met, dispatched_at=again, version=Job.version + 1))
