"""What keeps a waiting job from starting: its type is unknown, its queue is paused, or its concurrency key is full.

`start` asks here, and this decides. A job that is refused is withheld: `dispatched_at` is infinite, or for
an unknown type AWAITS_HANDLER_AT, so that no sweep looks at it (see `claims` and `awaiting`).
"""

from collections import Counter
from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Connection, bindparam, func, literal_column, select, update

from jobsvc.db.models import AWAITS_HANDLER_AT, Job, Moment, Queue
from jobsvc.db.sql import lock_number, now
from jobsvc.states import WAITING, Status

HELD = literal_column("'infinity'::timestamptz", Moment)
NO_HANDLER = literal_column(f"'{AWAITS_HANDLER_AT}'::timestamptz", Moment)

paused = select(Queue.name).where(Queue.paused_at.is_not(None))

may_start = (
    Job.status.in_(WAITING),
    Job.due_at <= now(),
    Job.expires_at.is_(None) | (Job.expires_at > now()),
)
"""What a job needs in itself to be started; the rest is other jobs' and its queue's."""


def admit(connection: Connection, job_ids: Collection[UUID], types: Collection[str] | None) -> list[UUID]:
    """Return those of these jobs that may start now, by their types, queues and concurrency keys; withhold the others.

    types: the job types that can be run; None for any.
    Exact however many ask at once: the keys stay locked until the transaction ends.
    """
    wanted = select(
        Job.id, Job.type, Job.concurrency_key, Job.concurrency_limit, Job.queue.in_(paused).label("is_paused")
    ).where(Job.id.in_(job_ids), *may_start)
    found = connection.execute(wanted).all()
    if unknown := [job.id for job in found if types is not None and job.type not in types]:
        _await_handler(connection, unknown)
        found = [job for job in found if job.id not in unknown]
        wanted = wanted.where(Job.id.not_in(unknown))
    lock(connection, (job.concurrency_key for job in found if job.concurrency_key))
    # With the keys locked, wait for no row: who holds one might wait for a key. It is decided there anyway.
    jobs = connection.execute(
        # The largest limit first, so that one who may start doesn't count who may not.
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
        connection.execute(update(Job).where(Job.id.in_(refused)).values(dispatched_at=HELD))
    return admitted


def lock(connection: Connection, keys: Iterable[str]) -> None:
    """Lock these concurrency keys until the transaction ends, in one order for everybody."""
    if numbers := sorted({lock_number("concurrency key", key) for key in keys}):
        each = func.unnest(bindparam("numbers", numbers, ARRAY(BigInteger))).column_valued()
        connection.execute(select(func.pg_advisory_xact_lock(each)))


def _await_handler(connection: Connection, job_ids: Collection[UUID]) -> None:
    # SKIP LOCKED: a row's holder decides on the job. One that is withheld already is not written to again.
    strange = select(Job.id).where(Job.id.in_(job_ids), *may_start, Job.dispatched_at.is_distinct_from(NO_HANDLER))
    locked = strange.with_for_update(skip_locked=True).cte("locked")
    connection.execute(update(Job).where(Job.id == locked.c.id).values(dispatched_at=NO_HANDLER))


def _running(connection: Connection, keys: set[str]) -> Counter[str | None]:
    if not keys:
        return Counter()
    running = select(Job.concurrency_key, func.count()).where(Job.status == Status.PROCESSING)
    running = running.where(Job.concurrency_key.in_(keys)).group_by(Job.concurrency_key)
    return Counter(dict(iter(connection.execute(running))))
