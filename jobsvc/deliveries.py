"""Which waiting jobs have to be handed to RQ: the bookkeeping of `delivered_at`.

`delivered_at` is a claim, written before the push. It may be wrong, if the push failed or Redis
forgot it: then the job is found missing here, and claimed again. A delivery too many is harmless.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, null, select, update

from jobsvc.db import transaction
from jobsvc.jobs import intervals_left
from jobsvc.models import WAITING, Job
from jobsvc.sql import now, seconds


@dataclass(frozen=True)
class Delivery:
    """What RQ has to know of a job: where it goes, and the intervals (seconds) of the retries after this start."""

    job_id: UUID
    type: str
    queue: str
    timeout: float
    retry_intervals: list[float]
    due_at: datetime


_waits = Job.status.in_(WAITING)
_is_delivered = Job.delivered_at >= Job.due_at
_is_not_delivered = Job.delivered_at.is_(None) | (Job.delivered_at < Job.due_at)


def claim_due(limit: int) -> list[Delivery]:
    """Claim up to `limit` jobs that are due and not in RQ, the longest due first. No two callers get the same one."""
    return _claim(
        select(Job.id).where(_waits, _is_not_delivered, Job.due_at <= now()).order_by(Job.due_at).limit(limit)
    )


def claim_missing(queue: str, head: UUID | None, grace_seconds: float, limit: int) -> list[Delivery]:
    """Claim up to `limit` jobs of this queue that RQ must have lost.

    `head` is the job at the head of RQ's queue, None if that is empty. A queue is served in order,
    so what was delivered well before its head, and still waits, is not in it any more; nor is
    anything, when it is empty. `grace_seconds` is how long a job may be on its way.
    """
    served_until = (
        func.now() if head is None else select(Job.delivered_at).where(Job.id == head, _waits).scalar_subquery()
    )
    return _claim(
        select(Job.id)
        .where(_waits, _is_delivered, Job.queue == queue)
        .where(Job.delivered_at < served_until - seconds(grace_seconds))
        .order_by(Job.delivered_at)
        .limit(limit)
    )


def _claim(ids: Select[Any]) -> list[Delivery]:
    claim = (
        update(Job).where(Job.id.in_(ids.with_for_update(skip_locked=True))).values(delivered_at=now()).returning(Job)
    )
    with transaction() as connection:
        claimed = sorted(connection.execute(claim), key=lambda row: row.due_at)
    return [
        Delivery(
            row.id,
            row.type,
            row.queue,
            row.timeout,
            intervals_left(row, row.max_attempts - row.attempts - 1),
            row.due_at,
        )
        for row in claimed
    ]


def release(job_ids: Iterable[UUID]) -> None:
    """Take back the claims on these jobs: they did not reach RQ."""
    with transaction() as connection:
        connection.execute(update(Job).where(Job.id.in_(list(job_ids)), _waits).values(delivered_at=null()))


def seconds_to_next() -> float | None:
    """How long until the next job that is not in RQ comes due; None if there is none."""
    with transaction() as connection:
        wait = connection.scalar(
            select(func.extract("epoch", func.min(Job.due_at) - now())).where(_waits, _is_not_delivered)
        )
    return None if wait is None else max(float(wait), 0.0)
