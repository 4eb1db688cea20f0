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
from jobsvc.models import Job, Moment, Status
from jobsvc.sql import now, rows, seconds


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
# A job that is due counts as delivered from the start, which saves every job a second write: its
# process hands it to RQ next, and where that failed the sweep finds it missing there.
_insert = (
    insert(Job)
    .from_select(
        [
            *("id", "type", "queue", "payload", "timeout", "retry_intervals", "max_attempts"),
            *("status", "run_at", "due_at", "delivered_at", "expires_at"),
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
    .returning(Job.id, Job.due_at)
)


def submit(new: Sequence[NewJob]) -> list[tuple[UUID, datetime]]:
    """Store these jobs, all or none, in one transaction.

    Returns each one's id, a UUIDv7 (RFC 9562), and when it is due, in the order given.
    Raises StoreUnavailable, and then nothing was promised.
    """
    ids = [uuid7() for _ in new]
    parameters = [{"id": str(job_id), **_json(job)} for job_id, job in zip(ids, new, strict=True)]
    with transaction() as connection:
        due = {row.id: row.due_at for row in connection.execute(_insert, {"rows": parameters})}
    return [(job_id, due[job_id]) for job_id in ids]


def _json(job: NewJob) -> dict[str, Any]:
    return {**vars(job), "run_at": job.run_at.isoformat() if job.run_at else None}
