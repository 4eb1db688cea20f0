"""Changes waiting jobs as clients request: payload, queue, time, retries, timeout, expiry and tags.

A worker reads these from the job's row when it starts the job, so it can only start the job as changed. The returned
Dispatch says what must be done with RQ's entry of the job.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypedDict, cast
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Double, Text, Uuid, case, exists, false, func, null, select, update
from sqlalchemy import cast as as_type
from sqlalchemy.dialects.postgresql import JSONB

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Attempt, Job, Moment
from jobsvc.db.sql import now, rows, seconds, seconds_until
from jobsvc.errors import WrongState
from jobsvc.jobs.admission import paused
from jobsvc.jobs.claims import Dispatch, EntryChange, as_dispatch
from jobsvc.jobs.queries import Versions, load, require_version
from jobsvc.states import WAITING, Status


class Changes(TypedDict, total=False):
    """New values of a job's fields; the others stay as they are. Durations are in seconds.

    delay, run_at: when the job is next due; None means now. At most one of them has a value.
    retry_intervals: of the retries after the next attempt. expires_in: None lifts the expiry.
    """

    payload: dict[str, Any]
    queue: str
    delay: float | None
    run_at: datetime | None
    retry_intervals: list[float]
    timeout: float
    expires_in: float | None
    tags: list[str] | None


class Amended(NamedTuple):
    """A job after its change, and its dispatch; None if RQ's entry can stay as it is."""

    job: Job
    dispatch: Dispatch | None


_given = select(
    rows(
        "given",
        id=Uuid,
        fields=ARRAY(Text),
        payload=JSONB,
        queue=Text,
        delay=Double,
        run_at=Moment,
        retry_intervals=ARRAY(Double),
        timeout=Double,
        expires_in=Double,
        tags=ARRAY(Text),
    )
).cte("given")


def _has(*fields: str) -> Any:
    """Return SQL that is true for a job of which one of these fields is changed."""
    return _given.c.fields.bool_op("&&")(as_type(list(fields), ARRAY(Text)))


def _new(field: str) -> Any:
    return case((_has(field), _given.c[field]), else_=getattr(Job, field))


_time_changes = _has("delay", "run_at")
_asked = func.coalesce(_given.c.run_at, now() + seconds(_given.c.delay))
# A job that is already due keeps its place among the others that are due.
_due_at = case((_time_changes, func.coalesce(_asked, func.least(Job.due_at, now()))), else_=Job.due_at)
_stays_in_queue = (Job.dispatched_at >= Job.due_at) & (_due_at <= now()) & (_new("queue") == Job.queue)
_locked = (
    select(Job.id, _asked.label("asked"), _due_at.label("due_at"), _stays_in_queue.label("stays"))
    .join(_given, _given.c.id == Job.id)
    .where(Job.status.in_(WAITING))
    # Ordered by id: two transactions that lock the same jobs must not wait for each other (deadlock).
    .order_by(Job.id)
    .with_for_update(of=Job)
    .cte("locked")
)
_status = case(
    (~_time_changes | Job.status.not_in((Status.PENDING, Status.SCHEDULED)), Job.status),
    (_locked.c.due_at > now(), Status.SCHEDULED),
    else_=Status.PENDING,
)
_is_free = Job.concurrency_key.is_(None) & Job.rate_key.is_(None) & _new("queue").not_in(paused)
_dispatched_at = case(
    (Job.status == Status.BLOCKED, Job.dispatched_at),
    (_locked.c.stays, func.greatest(Job.dispatched_at, _locked.c.due_at)),
    ((_locked.c.due_at <= now()) & _is_free, now()),  # the caller dispatches it, like a new job
    else_=null(),
)
_expires_at = now() + seconds(_given.c.expires_in)
# An expiry applies to the first attempt only. An attempt that has started is counted, or has a row.
_has_started = (
    (Job.attempts > 0) | Job.expiry_met.is_not(None) | exists().where(Attempt.job_id == Job.id).correlate(Job)
)
_expiry_changes = _has("expires_in")
_amend = (
    update(Job)
    .where(Job.id == _locked.c.id, Job.id == _given.c.id)
    .values(
        payload=_new("payload"),
        queue=_new("queue"),
        timeout=_new("timeout"),
        tags=_new("tags"),
        retry_intervals=_new("retry_intervals"),
        max_attempts=case(
            (_has("retry_intervals"), Job.attempts + 1 + func.cardinality(_given.c.retry_intervals)),
            else_=Job.max_attempts,
        ),
        run_at=case((_time_changes, _locked.c.asked), else_=Job.run_at),
        due_at=_locked.c.due_at,
        status=_status,
        dispatched_at=_dispatched_at,
        expires_at=case((~_expiry_changes, Job.expires_at), (_has_started, null()), else_=_expires_at),
        expiry_met=case((~_expiry_changes, Job.expiry_met), (_has_started, _expires_at), else_=null()),
        version=Job.version + 1,
    )
    .returning(Job, seconds_until(Job.due_at).label("wait"), func.coalesce(_locked.c.stays, false()).label("stays"))
)
_IN_ENTRY = frozenset({"queue", "delay", "run_at", "retry_intervals", "timeout"})
"""Fields that RQ's entry of a job depends on."""


@retrying
def amend(job_id: UUID, changes: Changes, versions: Versions = None) -> Amended:
    """Change these fields of a waiting job.

    Raises JobNotFound, WrongState if the job is not waiting, and VersionMismatch if its version is not in `versions`.
    """
    with transaction() as connection:
        require_version(connection, job_id, versions)
        if changes and (amended := amend_these(connection, {job_id: changes})):
            return amended[job_id]
        job = load(connection, job_id)
        if changes or job.status not in WAITING:
            raise WrongState(f"the job was {job.status}; only one that is {' or '.join(WAITING)} can be changed")
        return Amended(job, None)


def amend_these(connection: Connection, changes: Mapping[UUID, Changes]) -> dict[UUID, Amended]:
    """Change those of the jobs that are waiting, within the caller's transaction; returns them by id.

    Dispatch nothing before the transaction is committed.
    """
    records = [
        {
            "id": str(job_id),
            "fields": list(given),
            **{name: value for name, value in given.items() if value is not None},
        }
        for job_id, given in changes.items()
    ]
    found = connection.execute(_amend, {"rows": records})
    return {job.id: Amended(cast(Job, job), _dispatch_of(job, changes[job.id].keys())) for job in found}


def _dispatch_of(job: Any, fields: Any) -> Dispatch | None:
    if job.status == Status.BLOCKED:
        return None
    dispatch = as_dispatch(job)._replace(is_claimed=job.dispatched_at is not None)
    if not job.stays and (dispatch.wait <= 0 or fields & _IN_ENTRY):
        return dispatch._replace(change=EntryChange.REPLACE)
    if job.stays and fields & {"retry_intervals", "timeout"}:
        return dispatch._replace(change=EntryChange.UPDATE)
    return None
