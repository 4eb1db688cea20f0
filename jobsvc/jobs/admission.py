"""Decides whether a waiting job may start: not with an unknown type, a paused queue or a full concurrency key.

A refused job is withheld: its `dispatched_at` is infinite, or AWAITS_HANDLER_AT for an unknown type. Sweeps skip
such jobs; `claims` and `unknown_types` claim them later.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Connection, bindparam, func, literal_column, select, update

from jobsvc.db.conditions import AWAITS_HANDLER_AT
from jobsvc.db.models import Job, Moment, Queue
from jobsvc.db.sql import lock_number, now
from jobsvc.states import STARTABLE, Status

WITHHELD = literal_column("'infinity'::timestamptz", Moment)
NO_HANDLER = literal_column(f"'{AWAITS_HANDLER_AT}'::timestamptz", Moment)

paused = select(Queue.name).where(Queue.paused_at.is_not(None))

MAX_CONCURRENCY_LIMIT = 1000
"""Largest concurrency limit of a key."""

may_start = (
    Job.status.in_(STARTABLE),
    Job.due_at <= now(),
    Job.expires_at.is_(None) | (Job.expires_at > now()),
)
"""Conditions on a job's own row for a start; `admit` checks its queue and concurrency key as well."""


def admit(
    connection: Connection,
    job_ids: Collection[UUID],
    types: Collection[str] | None,
    conditions: Sequence[ColumnElement[bool]] = (),
) -> list[UUID]:
    """Return the ids of the given jobs that may start now; withhold the others.

    types: the job types that can be run; None for any.
    conditions: jobs that don't meet these are left out; they are not withheld.
    Exact under concurrent calls: the concurrency keys stay locked until the transaction ends.
    """
    wanted = select(
        Job.id, Job.type, Job.concurrency_key, Job.concurrency_limit, Job.queue.in_(paused).label("is_paused")
    ).where(Job.id.in_(job_ids), *may_start, *conditions)
    found = connection.execute(wanted).all()
    if unknown := [job.id for job in found if types is not None and job.type not in types]:
        _await_handler(connection, unknown)
        found = [job for job in found if job.id not in unknown]
        wanted = wanted.where(Job.id.not_in(unknown))
    lock(connection, (job.concurrency_key for job in found if job.concurrency_key))
    # SKIP LOCKED: a row's holder may wait for a key we hold (deadlock). That transaction decides on the job.
    jobs = connection.execute(
        # Largest limit first: a job refused for its smaller limit must not count against one that may start.
        wanted.order_by(Job.concurrency_limit.desc(), Job.due_at, Job.id).with_for_update(skip_locked=True, of=Job)
    ).all()
    running = _running(connection, {job.concurrency_key for job in jobs if job.concurrency_key})
    admitted: list[UUID] = []
    for job in jobs:
        if job.is_paused or (job.concurrency_key and running[job.concurrency_key] >= job.concurrency_limit):
            continue
        running[job.concurrency_key] += 1
        admitted.append(job.id)
    if refused := [job.id for job in jobs if job.id not in admitted]:
        connection.execute(update(Job).where(Job.id.in_(refused)).values(dispatched_at=WITHHELD))
    return admitted


def lock(connection: Connection, keys: Iterable[str]) -> None:
    """Lock these concurrency keys until the transaction ends, always in the same order (deadlock)."""
    if numbers := sorted({lock_number("concurrency key", key) for key in keys}):
        each = func.unnest(bindparam("numbers", numbers, ARRAY(BigInteger))).column_valued()
        connection.execute(select(func.pg_advisory_xact_lock(each)))


def _await_handler(connection: Connection, job_ids: Collection[UUID]) -> None:
    # SKIP LOCKED: a row's holder decides on the job. A job that is already withheld is not written again.
    strange = select(Job.id).where(Job.id.in_(job_ids), *may_start, Job.dispatched_at.is_distinct_from(NO_HANDLER))
    locked = strange.with_for_update(skip_locked=True).cte("locked")
    connection.execute(update(Job).where(Job.id == locked.c.id).values(dispatched_at=NO_HANDLER))


def _running(connection: Connection, keys: set[str]) -> Counter[str | None]:
    if not keys:
        return Counter()
    running = select(Job.concurrency_key, func.count()).where(Job.status == Status.PROCESSING)
    running = running.where(Job.concurrency_key.in_(keys)).group_by(Job.concurrency_key)
    return Counter(dict(iter(connection.execute(running))))
