"""Jobs that were not started in time."""

from sqlalchemy import func, select, update

from jobsvc.db import transaction
from jobsvc.jobs.deliveries import announce
from jobsvc.jobs.tallies import Event, Tally, counting
from jobsvc.models import Job
from jobsvc.sql import now
from jobsvc.states import WAITING, Status


def expire(limit: int) -> int:
    """Fail up to `limit` jobs that were not started by their expiry; returns how many."""
    late = (
        select(Job.id)
        .where(Job.status.in_(WAITING), Job.expires_at <= now())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("late")
    )
    error = func.jsonb_build_object(
        "type", "Expired", "message", "not started before it expired", "attempt", Job.attempts
    )
    fail = (
        update(Job)
        .where(Job.id == late.c.id)
        .values(status=Status.FAILED, finished_at=now(), error=error, version=Job.version + 1)
        .returning(Job.id, Job.status, Job.type, Job.queue, Job.webhook_url)
    )
    with transaction() as connection:
        expired = connection.execute(counting(fail, lambda job: Tally(Event.DROPPED, job.status))).all()
        announce(connection, [job.id for job in expired if job.webhook_url])
    return len(expired)
