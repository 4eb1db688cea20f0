"""Webhooks: the transaction that ends a job with a webhook URL also inserts the job that delivers it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Uuid, case, cast, insert, select, update

import jobsvc.handlers.builtin.webhook  # noqa: F401  # the handler, by which deliveries are made
from jobsvc import handlers
from jobsvc.config import settings
from jobsvc.db.engine import retrying, statement, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, rows
from jobsvc.errors import WrongState
from jobsvc.jobs.ids import make_ids
from jobsvc.jobs.queries import Versions, load, require_version
from jobsvc.jobs.serialize import dump_job, show_time
from jobsvc.masking import mask_job, mask_passwords
from jobsvc.states import ENDED, Status

AT_ONCE = 50
"""Maximum number of ended jobs that one statement reads; each may be large."""

_deliveries = rows("deliveries", id=Uuid, delivery=Uuid)
_name_delivery = (
    update(Job)
    .where(Job.id == _deliveries.c.id, Job.status.in_(ENDED), Job.webhook_url.is_not(None))
    .values(webhook_job_id=_deliveries.c.delivery, version=Job.version + 1)
    .returning(Job)
)
# Not dispatched here: the process may have no relay. The next check by any relay dispatches it.
_insert = insert(Job).values(type=handlers.DELIVERY, status=Status.PENDING, due_at=now())


def announce(connection: Connection, job_ids: Iterable[UUID]) -> list[UUID]:
    """Insert a delivery for each given job that has ended and has a webhook URL; returns the deliveries' ids.

    To be called in the transaction that ended the jobs, so that both are stored or neither.
    """
    ids = list(job_ids)
    made: list[UUID] = []
    for first in range(0, len(ids), AT_ONCE):
        some = ids[first : first + AT_ONCE]
        new_ids = make_ids(connection, len(some))
        pairs = [{"id": str(id_), "delivery": new_id} for id_, new_id in zip(some, new_ids, strict=True)]
        announced = connection.execute(_name_delivery, {"rows": pairs}).all()
        if announced:
            connection.execute(_insert, [_delivery_of(job) for job in announced])
        made += [job.webhook_job_id for job in announced]
    return made


@retrying
def announce_again(job_id: UUID, versions: Versions = None) -> UUID:
    """Insert another delivery for an ended job, with its current state; returns the delivery's id.

    Raises JobNotFound, WrongState if the job has not ended or has no webhook URL, and VersionMismatch if its
    version is not among `versions`.
    """
    with transaction() as connection:
        require_version(connection, job_id, versions)
        job = load(connection, job_id)
        if job.webhook_url is None:
            raise WrongState("the job has no webhookUrl")
        made = announce(connection, [job_id])
        if not made:
            raise WrongState(f"the job was {job.status}; a webhook is sent only for one that has ended")
        return made[0]


@dataclass(frozen=True)
class Delivery:
    """A webhook's delivery. `about`: id of the job whose end it reports, None if its payload is malformed."""

    id: UUID
    status: str
    event: str | None
    about: UUID | None
    url: str | None
    answer: str | None
    error: dict[str, Any] | None
    attempts: int
    max_attempts: int
    created_at: datetime


_about = Job.payload["body"]["data"]["id"].astext
_is_id = _about.regexp_match("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_shown = select(
    Job.id,
    Job.status,
    Job.payload["body"]["type"].astext.label("event"),
    case((_is_id, cast(_about, Uuid))).label("about"),
    Job.payload["url"].astext.label("url"),
    Job.result["status"].astext.label("answer"),
    Job.error,
    Job.attempts,
    Job.max_attempts,
    Job.created_at,
)


def deliveries(limit: int, cursor: UUID | None = None) -> tuple[list[Delivery], UUID | None]:
    """Return a page of deliveries, newest first, and the cursor of the next page, None after the last.

    Passwords in their URLs are masked.
    """
    wanted = _shown.where(Job.type == handlers.DELIVERY).order_by(Job.id.desc()).limit(limit + 1)
    with statement() as connection:
        found = connection.execute(wanted.where(Job.id < cursor) if cursor else wanted).mappings()
        rows = [Delivery(**{**row, "url": mask_passwords(row["url"] or "")}) for row in found]
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def _delivery_of(job: Any) -> dict[str, Any]:
    handler = handlers.find(handlers.DELIVERY)
    assert handler is not None
    intervals = handler.retry.intervals()
    message = {
        "type": f"job.{job.status.lower()}",
        "timestamp": show_time(job.finished_at),
        "data": mask_job(dump_job(job)),
    }
    return {
        "id": job.webhook_job_id,
        "queue": settings().default_queue,
        "payload": {"url": job.webhook_url, "body": message},
        "timeout": handler.timeout,
        "retry_intervals": intervals,
        "max_attempts": 1 + len(intervals),
        "traceparent": job.traceparent,
    }
