"""New jobs: stored, before anybody is told that they were accepted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Double, Text, Uuid, case, func, insert, null, select
from sqlalchemy.dialects.postgresql import JSONB
from uuid_utils.compat import uuid7

from jobsvc.db import transaction
from jobsvc.jobs.dispatching import Dispatch
from jobsvc.models import Job, Moment, Status
from jobsvc.sql import now, rows, seconds, seconds_until


@dataclass(frozen=True)
class NewJob:
    """A job as a client asks for it, with the defaults filled in. Durations are seconds."""

    type: str
    queue: str
    payload: dict[str, Any]
    timeout: float
    retry_intervals: list[float]
    delay: float | None = None
    run_at: datetime | None = None
    expires_in: float | None = None


_new = rows(
    "new",
    id=Uuid,
    type=Text,
    queue=Text,
    payload=JSONB,
    timeout=Double,
    retry_intervals=ARRAY(Double),
    delay=Double,
    run_at=Moment,
    expires_in=Double,
)
_asked = func.coalesce(_new.c.run_at, now() + seconds(_new.c.delay))
_is_later = _asked > now()
# A job that is due counts as dispatched from the start, which saves every job a second write: its
# process pushes it to RQ next, and where that failed the sweep finds it missing there.
_insert = (
    insert(Job)
    .from_select(
        [
            *("id", "type", "queue", "payload", "timeout", "retry_intervals", "max_attempts"),
            *("status", "run_at", "due_at", "dispatched_at", "expires_at"),
        ],
        select(
            *(_new.c[name] for name in ("id", "type", "queue", "payload", "timeout", "retry_intervals")),
            func.cardinality(_new.c.retry_intervals) + 1,
            case((_is_later, Status.SCHEDULED), else_=Status.PENDING),
            _asked,
            func.coalesce(_asked, now()),
            case((_is_later, null()), else_=now()),
            now() + seconds(_new.c.expires_in),
        ),
    )
    .returning(Job.id, Job.due_at, seconds_until(Job.due_at).label("wait"))
)


def submit(new: Sequence[NewJob]) -> list[Dispatch]:
    """Store these jobs, all or none, in one transaction.

    Returns what is to be dispatched, in the order given; each job's id is a UUIDv7 (RFC 9562).
    Raises StoreUnavailable, and then nothing was promised.
    """
    jobs = {uuid7(): job for job in new}
    with transaction() as connection:
        stored = connection.execute(_insert, {"rows": [_row(*item) for item in jobs.items()]}).all()
    times = {row.id: (row.due_at, float(row.wait)) for row in stored}
    return [
        Dispatch(job_id, job.type, job.queue, job.timeout, job.retry_intervals, *times[job_id])
        for job_id, job in jobs.items()
    ]


def _row(job_id: UUID, job: NewJob) -> dict[str, Any]:
    return {**vars(job), "id": str(job_id), "run_at": job.run_at.isoformat() if job.run_at else None}
