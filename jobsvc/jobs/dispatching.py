"""Which waiting jobs have to be dispatched to RQ: the bookkeeping of `dispatched_at`.

`dispatched_at` is a claim, written before the push. It may be wrong, if the push failed or Redis
forgot it: then the job is found missing here, and claimed again. A dispatch too many is harmless.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, null, select, update

from jobsvc.db import transaction
from jobsvc.jobs.attempts import last_intervals
from jobsvc.models import WAITING, Job
from jobsvc.sql import now, seconds, seconds_until


@dataclass(frozen=True)
class Dispatch:
    """What RQ has to know of a job: where it goes, when, and the intervals of the retries after this start.

    All in seconds; `wait` is what is left until `due_at`, 0 or less if it is due, by Postgres' clock.
    """

    job_id: UUID
    type: str
    queue: str
    timeout: float
    retry_intervals: list[float]
    due_at: datetime
    wait: float
    traceparent: str | None = None


_waits = Job.status.in_(WAITING)
_is_dispatched = Job.dispatched_at >= Job.due_at
_is_not_dispatched = Job.dispatched_at.is_(None) | (Job.dispatched_at < Job.due_at)


def claim_due(limit: int) -> list[Dispatch]:
    """Claim up to `limit` jobs that are due and not in RQ, the longest due first. No two callers get the same one."""
    due = select(Job.id).where(_waits, _is_not_dispatched, Job.due_at <= now())
    return _claim(due.order_by(Job.due_at).limit(limit))


def claim_missing(queue: str, head: UUID | None, grace_seconds: float, limit: int) -> list[Dispatch]:
    """Claim up to `limit` jobs of this queue that RQ must have lost.

    `head` is the job at the head of RQ's queue, None if that is empty. A queue is served in order,
    so what was dispatched well before its head, and still waits, is not in it any more; nor is
    anything, when it is empty. `grace_seconds` is how long a job may be on its way.
    """
    served_until = now() if head is None else select(Job.dispatched_at).where(Job.id == head, _waits).scalar_subquery()
    missing = select(Job.id).where(_waits, _is_dispatched, Job.queue == queue)
    missing = missing.where(Job.dispatched_at < served_until - seconds(grace_seconds))
    return _claim(missing.order_by(Job.dispatched_at).limit(limit))


def _claim(wanted: Select[Any]) -> list[Dispatch]:
    # A CTE, since Postgres may run a subquery with a limit more than once, and lock other rows each time.
    locked = wanted.with_for_update(skip_locked=True).cte("locked")
    claim = (
        update(Job)
        .where(Job.id == locked.c.id)
        .values(dispatched_at=now())
        .returning(Job, seconds_until(Job.due_at).label("wait"))
    )
    with transaction() as connection:
        claimed = connection.execute(claim).all()
    return sorted(map(as_dispatch, claimed), key=lambda dispatch: dispatch.due_at)


def as_dispatch(job: Any) -> Dispatch:
    """The dispatch of a job's row, which has `wait` beside the job's columns."""
    retries = job.max_attempts - job.attempts - 1
    left = last_intervals(job, retries)
    return Dispatch(job.id, job.type, job.queue, job.timeout, left, job.due_at, float(job.wait), job.traceparent)


def release(job_ids: Iterable[UUID]) -> None:
    """Take back the claims on these jobs: they did not reach RQ."""
    with transaction() as connection:
        connection.execute(update(Job).where(Job.id.in_(list(job_ids)), _waits).values(dispatched_at=null()))


def seconds_to_next() -> float | None:
    """How long until the next job that is not in RQ comes due; None if there is none."""
    with transaction() as connection:
        wait = connection.scalar(select(seconds_until(func.min(Job.due_at))).where(_waits, _is_not_dispatched))
    return None if wait is None else max(float(wait), 0.0)
