"""Stores new jobs. A job is accepted when its transaction has been committed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Connection,
    Double,
    Insert,
    Integer,
    Select,
    Text,
    Uuid,
    case,
    cast,
    func,
    null,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from jobsvc.db.conditions import IS_UNFINISHED
from jobsvc.db.engine import retrying, statement, transaction
from jobsvc.db.models import Job, Moment
from jobsvc.db.sql import now, rows, seconds, seconds_until
from jobsvc.jobs.admission import paused
from jobsvc.jobs.claims import Dispatch
from jobsvc.jobs.conflicts import Submitted, accepted, settle
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.dependencies import Dependency, in_order_of_dependencies, link_all
from jobsvc.jobs.group_commit import GroupCommit, do_each
from jobsvc.jobs.ids import make_ids
from jobsvc.jobs.releases import CANCEL
from jobsvc.servers import pgclock
from jobsvc.states import Status


class NewJob(NamedTuple):
    """A job as requested by a client, with all defaults. Durations are in seconds."""

    type: str
    queue: str
    payload: dict[str, Any]
    timeout: float
    retry_intervals: list[float]
    delay: float | None = None
    run_at: datetime | None = None
    expires_in: float | None = None
    unique_key: str | None = None
    tags: list[str] | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    rate_key: str | None = None
    rate_limit: int | None = None
    rate_per: float | None = None
    webhook_url: str | None = None
    traceparent: str | None = None
    on_conflict: str | None = None
    depends_on: list[Dependency] | None = None
    on_dependency_failure: str | None = None


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
    unique_key=Text,
    tags=ARRAY(Text),
    concurrency_key=Text,
    concurrency_limit=Integer,
    rate_key=Text,
    rate_limit=Integer,
    rate_per=Double,
    webhook_url=Text,
    traceparent=Text,
    on_dependency_failure=Text,
)
_is_blocked = _new.c.on_dependency_failure.is_not(None)  # until `link_all` has checked its dependencies
_asked = func.coalesce(_new.c.run_at, now() + seconds(_new.c.delay))
_is_later = _asked > now()
# A due job is inserted as dispatched, which saves every job a second write. This process enqueues it
# next; if that fails, a sweep finds it missing in RQ. If the job has a key or its queue is paused, the
# relay's next check decides whether it is dispatched.
_is_claimed = _new.c.concurrency_key.is_(None) & _new.c.rate_key.is_(None) & _new.c.queue.not_in(paused)
_columns = {
    "id": _new.c.id,
    "type": _new.c.type,
    "queue": _new.c.queue,
    "payload": _new.c.payload,
    "timeout": _new.c.timeout,
    "retry_intervals": _new.c.retry_intervals,
    "max_attempts": func.cardinality(_new.c.retry_intervals) + 1,
    "status": case((_is_blocked, Status.BLOCKED), (_is_later, Status.SCHEDULED), else_=Status.PENDING),
    "run_at": _asked,
    "due_at": func.coalesce(_asked, now()),
    "dispatched_at": case((_is_blocked | _is_later, null()), (_is_claimed, now())),
    "expires_at": now() + seconds(_new.c.expires_in),
    "unique_key": _new.c.unique_key,
    "tags": _new.c.tags,
    "concurrency_key": _new.c.concurrency_key,
    "concurrency_limit": _new.c.concurrency_limit,
    "rate_key": _new.c.rate_key,
    "rate_limit": _new.c.rate_limit,
    "rate_per": _new.c.rate_per,
    "webhook_url": _new.c.webhook_url,
    "traceparent": _new.c.traceparent,
    "on_dependency_failure": _new.c.on_dependency_failure,
}


def _storing(statement: Insert) -> Select[Any]:
    """Return the statement, extended to return a row of ids for all jobs that are due alike, and to count the jobs."""
    returning = statement.returning(
        cast(Job.id, Text).label("id"),
        Job.due_at,
        cast(seconds_until(Job.due_at), Double).label("wait"),
        Job.dispatched_at.is_not(None).label("is_claimed"),
        Job.type,
        Job.queue,
    )
    storing = counting(
        returning,
        lambda job: Count(Event.ACCEPTED),
        # One row for many jobs: to make a row of each in Python takes 3 µs.
        lambda job: select(
            job.due_at, job.wait, job.is_claimed, func.array_agg(job.id, type_=ARRAY(Text)).label("ids")
        ).group_by(job.due_at, job.wait, job.is_claimed),
    )
    return storing.execution_options(is_prepared=True)


_all_new = select(*_columns.values())
_insert_free = _storing(insert(Job).from_select(list(_columns), _all_new))
"""For jobs without unique keys: Postgres takes a fifth longer if it has to expect conflicts."""
_insert_keyed = _storing(
    insert(Job)
    # A fixed order: two batches with the same unique keys must not wait for each other (deadlock).
    .from_select(list(_columns), _all_new.order_by(_new.c.type, _new.c.unique_key, _new.c.id))
    .on_conflict_do_nothing(
        index_elements=[Job.type, Job.unique_key],
        index_where=text(f"unique_key IS NOT NULL AND {IS_UNFINISHED}"),
    )
)


def submit(new: Sequence[NewJob]) -> list[Submitted]:
    """Store new jobs in one transaction, all or none; returns one Submitted for each, in order.

    A new job's id is a UUIDv7 (RFC 9562). A job is not stored if its unique key is taken, or occurs
    earlier in `new`: see `conflicts`. Raises UniqueKeyConflict if a job was refused for that, UnknownDependencies,
    graphlib.CycleError, and StoreUnavailable: the jobs may have been stored, but are not accepted.
    """
    if any(job.unique_key is not None or job.depends_on for job in new):
        return _submit_keyed(new)
    return [_submit_one(new[0])] if len(new) == 1 else _submit_freely(new)


@retrying
def _submit_keyed(new: Sequence[NewJob]) -> list[Submitted]:
    with transaction() as connection:
        return accepted(store(connection, new))


def _submit_freely(new: Sequence[NewJob]) -> list[Submitted]:
    with statement() as connection:  # enough without unique keys and dependencies
        return store(connection, new, is_alone=True)


def submit_each(new: Sequence[NewJob]) -> list[Submitted | Exception]:
    """Store jobs without unique keys and dependencies in one statement, or, if Postgres rejects it, each in its own.

    Returns a Submitted, or the error, for each job, in order.
    """
    return do_each(_submit_freely, new)


# A job without a unique key waits for no other transaction, so none in a group delays the others.
_submit_one = GroupCommit(_submit_freely)


def store(connection: Connection, new: Sequence[NewJob], is_alone: bool = False) -> list[Submitted]:
    """Store new jobs like `submit`, in the caller's transaction. Dispatch nothing before it is committed.

    Jobs that were refused are among the returned ones; see `accepted`. is_alone: each statement is a transaction.
    """
    ids = make_ids(connection, len(new))
    if has_links := not is_alone and any(job.depends_on for job in new):
        order = in_order_of_dependencies([job.depends_on for job in new])
        ids = [id_ for _, id_ in sorted(zip(order, ids, strict=True))]
    records = [_record(id_, job) for id_, job in zip(ids, new, strict=True)]
    storing = _insert_keyed if any(job.unique_key is not None for job in new) else _insert_free
    found: dict[int, Submitted] = {}
    while len(found) < len(new):  # race: the holder of a unique key may end between the two statements
        missing = {ids[i]: i for i in range(len(new)) if i not in found}
        asked_at = pgclock.seconds_since_boot()
        stored = connection.execute(storing, {"rows": [records[i] for i in missing.values()]}).all()
        if is_alone and stored and not pgclock.is_fresh(pgclock.SAMPLE_SECONDS):
            # now() is this statement's time; in a transaction it would be that of an earlier statement.
            at = stored[0].due_at.timestamp() - stored[0].wait
            pgclock.add_sample(at, asked_at, answered_at=pgclock.seconds_since_boot())
        for due_at, wait, is_claimed, stored_ids in stored:
            for id_ in stored_ids:
                i = missing.pop(id_)
                found[i] = Submitted(id_, _dispatch_of(id_, new[i], due_at, wait, is_claimed))
        if missing:
            settle(connection, {i: new[i] for i in missing.values()}, found)
    submitted = [found[i] for i in range(len(new))]
    if not has_links:
        return submitted
    cannot_start = link_all(connection, new, submitted)
    return [one._replace(dispatch=None) if one.job_id in cannot_start else one for one in submitted]


def _dispatch_of(job_id: str, job: NewJob, due_at: datetime, wait: float, is_claimed: bool) -> Dispatch:
    plan = (job.type, job.queue, job.timeout, job.retry_intervals)
    return Dispatch(job_id, *plan, due_at, wait, is_claimed, job.traceparent)


def _record(job_id: str, job: NewJob) -> dict[str, Any]:
    """Return a job as a record for the INSERT; optional columns without a value are left out."""
    record = {
        "id": job_id,
        "type": job.type,
        "queue": job.queue,
        "payload": job.payload,
        "timeout": job.timeout,
        "retry_intervals": job.retry_intervals,
    }
    if job[len(record) - 1 :] == _NO_OPTIONS:
        return record
    for name in _OPTIONAL:
        if (value := getattr(job, name)) is not None and value != []:
            record[name] = value
    if job.depends_on:
        record.setdefault("on_dependency_failure", CANCEL)
    return record


_NO_OPTIONS = tuple(NewJob._field_defaults.values())
_OPTIONAL = tuple(name for name in NewJob._field_defaults if name not in ("on_conflict", "depends_on"))
