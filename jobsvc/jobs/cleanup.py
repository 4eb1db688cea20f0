"""Deletes old ended jobs. Finds them by the primary key, so that no job pays for an index only for this."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, delete, func, select

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Attempt, AttemptLines, Job
from jobsvc.db.sql import now, seconds
from jobsvc.jobs.ids import first_id
from jobsvc.jobs.queries import MAX_ATTEMPTS
from jobsvc.states import ENDED

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

    Scans ids above `after`, at most SCANNED_PER_DELETED times `limit`. Ids are UUIDv7, ordered by creation:
    the scan stops at that time, since a job created later can't have ended before it.
    """
    with transaction() as connection:
        ended_by = connection.execute(select(func.extract("epoch", now() - seconds(older_than)))).scalar_one()
        since = first_id(float(ended_by))
        candidates = select(Job.id).where(Job.id > after, Job.id < since).order_by(Job.id)
        last = connection.scalar(candidates.offset(limit * SCANNED_PER_DELETED - 1).limit(1))
        old = (
            candidates.where(Job.id <= (last or since))
            .where(Job.status.in_(ENDED), Job.finished_at < now() - seconds(older_than))
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("old")
        )
        gone = connection.scalars(delete(Job).where(Job.id == old.c.id).returning(Job.id)).all()
    return Pruned(list(gone), max(gone) if len(gone) == limit else last or LOWEST)


def is_trim_due(fence: int) -> bool:
    """Return True if a job's history is to be trimmed when the start with this fence ends."""
    return fence > MAX_ATTEMPTS and fence % TRIM_EVERY == 0


def trim_history(connection: Connection, job_id: UUID) -> None:
    """Delete a job's attempts that are no longer shown, so that endless snoozing doesn't fill the table."""
    newest = select(Attempt.fence).where(Attempt.job_id == job_id).order_by(Attempt.fence.desc())
    oldest = connection.scalar(newest.offset(MAX_ATTEMPTS - 1).limit(1))
    if oldest is not None:
        for table in (Attempt, AttemptLines):
            connection.execute(delete(table).where(table.job_id == job_id, table.fence < oldest))
