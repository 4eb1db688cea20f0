"""Expires jobs whose first attempt did not start in time."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, case, exists, func, null, select, update

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Attempt, Job
from jobsvc.db.sql import now
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.webhooks import announce
from jobsvc.states import WAITING, Status

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
        .returning(Job.id, Job.status, Job.type, Job.queue, Job.webhook_url)
    )
    expired = connection.execute(counting(fail, lambda job: Count(Event.DROPPED, job.status))).all()
    announce(connection, [job.id for job in expired if job.webhook_url])


def _lift_expiry(connection: Connection, job_ids: Sequence[UUID]) -> None:
    if job_ids:
        # `start` may have refused the dispatched job: dispatch it again. A withheld job stays withheld.
        again = case((func.isfinite(Job.dispatched_at), null()), else_=Job.dispatched_at)
        lift = update(Job).where(Job.id.in_(job_ids))
        met = {"expires_at": null(), "expiry_met": Job.expires_at}
        connection.execute(lift.values(**met, dispatched_at=again, version=Job.version + 1))
