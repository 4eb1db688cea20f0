"""Leases of running attempts: renewal, cancel requests, and recovery once a lease has expired."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Uuid, func, select, update

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, rows, seconds
from jobsvc.jobs.attempt_results import lost
from jobsvc.jobs.finish import finish_within
from jobsvc.jobs.start import StartedAttempt
from jobsvc.states import Status

_leased = rows("leased", id=Uuid, fence=BigInteger)
_is_leased = (Job.id == _leased.c.id, Job.fence == _leased.c.fence, Job.status == Status.PROCESSING)


def _records(attempts: Iterable[StartedAttempt]) -> dict[str, Any]:
    records = [{"id": str(one.job_id), "fence": one.fence} for one in attempts]
    return {"rows": sorted(records, key=itemgetter("id"))}  # Postgres locks the rows in this order (deadlock)


@retrying
def renew(attempts: Iterable[StartedAttempt], lease_seconds: float) -> set[UUID]:
    """Extend the leases of running attempts.

    lease_seconds: seconds from now, by Postgres' clock.
    Returns the ids of the jobs whose attempt still has its lease. Raises StoreUnavailable.
    """
    extend = update(Job).where(*_is_leased).values(lease_expires_at=now() + seconds(lease_seconds)).returning(Job.id)
    with transaction() as connection:
        return set(connection.scalars(extend, _records(attempts)))


def cancel_requested(attempts: Iterable[StartedAttempt]) -> set[UUID]:
    """Return the ids of the jobs whose attempt still has its lease and is to be cancelled. Raises StoreUnavailable."""
    requested = select(Job.id).where(*_is_leased, Job.cancel_requested_at.is_not(None))
    with transaction() as connection:
        return set(connection.scalars(requested, _records(attempts)))


@retrying
def recover_lapsed(limit: int, lease_seconds: float) -> int:
    """Finish up to `limit` attempts whose lease has expired, as lost; returns how many.

    Does nothing until Postgres has been up for `lease_seconds`: leases could not be renewed before that.
    Raises StoreUnavailable.
    """
    lapsed = (
        select(Job.id, Job.fence)
        .where(Job.status == Status.PROCESSING, Job.lease_expires_at < now())
        .where(func.pg_postmaster_start_time() < now() - seconds(lease_seconds))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    message = "the worker died, or was cut off, before the attempt ended"
    with transaction() as connection:
        found = connection.execute(lapsed).all()
        if found:
            finish_within(connection, [lost(job.id, job.fence, message) for job in found])
    return len(found)
