"""What keeps a waiting job from starting: its queue is paused, or its concurrency key has no place free.

`start` asks here, and this decides. A job that is refused is *held*: with an infinite
`dispatched_at`, no sweep looks at it, until it is let go (see `dispatching`).
"""

from collections import Counter
from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Connection, bindparam, func, literal_column, select, update

from jobsvc.models import Job, Moment, Queue
from jobsvc.sql import lock_number, now
from jobsvc.states import WAITING, Status

HELD = literal_column("'infinity'::timestamptz", Moment)

paused = select(Queue.name).where(Queue.paused_at.is_not(None))

may_start = (
    Job.status.in_(WAITING),
    Job.due_at <= now(),
    Job.expires_at.is_(None) | (Job.expires_at > now()),
)
"""What a job needs in itself to be started; the rest is other jobs' and its queue's."""


def admit(connection: Connection, job_ids: Collection[UUID]) -> list[UUID]:
    """Which of these jobs may start now, as far as their queues and concurrency keys are concerned; hold the others.

    Exact however many ask at once: the keys stay locked until the transaction ends.
    """
    wanted = select(Job.id, Job.concurrency_key, Job.concurrency_limit, Job.queue.in_(paused).label("is_paused"))
    wanted = wanted.where(Job.id.in_(job_ids), *may_start)
    lock(connection, (job.concurrency_key for job in connection.execute(wanted) if job.concurrency_key))
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


def _running(connection: Connection, keys: set[str]) -> Counter[str | None]:
    if not keys:
        return Counter()
    running = select(Job.concurrency_key, func.count()).where(Job.status == Status.PROCESSING)
    running = running.where(Job.concurrency_key.in_(keys)).group_by(Job.concurrency_key)
    return Counter(dict(iter(connection.execute(running))))
