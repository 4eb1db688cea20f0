"""Decides whether a waiting job may start: not with an unknown type, a paused queue, or a full key.

A concurrency key is full while its limit of jobs run, a rate key while its limit of starts is in the window.

A refused job is withheld: its `dispatched_at` is infinite, or AWAITS_HANDLER_AT for an unknown type. Sweeps skip
such jobs; `claims` and `unknown_types` claim them later.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from jobsvc.db.conditions import AWAITS_HANDLER_AT
from jobsvc.db.models import Job, Moment, Queue
from jobsvc.db.sql import lock_number, now
from jobsvc.jobs.rate_starts import correct_starts
from jobsvc.jobs.slots import AHEAD_SECONDS, Lane, Slots, lane_columns, lane_of, read_slots
from jobsvc.states import STARTABLE

WITHHELD = literal_column("'infinity'::timestamptz", Moment)
LONGEST_WAIT_SECONDS = 1.5 * AHEAD_SECONDS
"""Longest time for which a start waits for free slots of rate limits; jobs are dispatched AHEAD_SECONDS early."""

NO_HANDLER = literal_column(f"'{AWAITS_HANDLER_AT}'::timestamptz", Moment)

paused = select(Queue.name).where(Queue.paused_at.is_not(None))

may_start = (
    Job.status.in_(STARTABLE),
    Job.due_at <= now(),
    Job.expires_at.is_(None) | (Job.expires_at > now()),
)
"""Conditions on a job's own row for a start; `admit` checks its queue and keys as well."""


class Admitted(NamedTuple):
    """A job that may start now."""

    job_id: UUID
    has_rate_limit: bool


def admit(
    connection: Connection,
    job_ids: Collection[UUID],
    types: Collection[str] | None,
    conditions: Sequence[ColumnElement[bool]] = (),
) -> list[Admitted]:
    """Return those of the given jobs that may start now; withhold the others.

    types: the job types that can be run; None for any.
    conditions: jobs that don't meet these are left out; they are not withheld.
    Exact under concurrent calls: the keys stay locked until the transaction ends.
    """
    wanted = select(Job.id, Job.type, *lane_columns, Job.queue.in_(paused).label("is_paused"))
    wanted = wanted.where(Job.id.in_(job_ids), *may_start, *conditions)
    found = connection.execute(wanted).all()
    if unknown := [job.id for job in found if types is not None and job.type not in types]:
        _await_handler(connection, unknown)
        found = [job for job in found if job.id not in unknown]
    lanes = [lane_of(job) for job in found]
    lock(connection, {lane.concurrency_key for lane in lanes}, {lane.rate_key for lane in lanes})
    # SKIP LOCKED: a row's holder may wait for a key we hold (deadlock). That transaction decides on the job.
    # Race: none that was not found above, since its keys are not locked.
    locked = wanted.where(Job.id.in_([job.id for job in found])).order_by(Job.due_at, Job.id)
    jobs = connection.execute(locked.with_for_update(skip_locked=True, of=Job)).all()
    admitted = _take(connection, [job for job in jobs if not job.is_paused])
    if refused := {job.id for job in jobs} - {job.id for job in admitted}:
        connection.execute(update(Job).where(Job.id.in_(refused)).values(dispatched_at=WITHHELD))
    return [Admitted(job.id, has_rate_limit=job.rate_key is not None) for job in admitted]


def lock(connection: Connection, concurrency_keys: Iterable[str], rate_keys: Iterable[str] = ()) -> None:
    """Lock these keys until the transaction ends, always in the same order (deadlock). The key "" is none."""
    numbers = {lock_number("concurrency key", key) for key in concurrency_keys if key}
    numbers |= {lock_number("rate key", key) for key in rate_keys if key}
    if numbers:
        each = func.unnest(bindparam("numbers", sorted(numbers), ARRAY(BigInteger))).column_valued()
        connection.execute(select(func.pg_advisory_xact_lock(each)))


def _take(connection: Connection, jobs: Sequence[Any]) -> list[Any]:
    """Return those of these jobs that get a slot, in their order; waits for slots that are free very soon."""
    waited = 0.0
    while True:
        slots = read_corrected_slots(connection, {lane_of(job) for job in jobs}, is_dispatch=False)
        taken = [job for job in jobs if slots.take(lane_of(job))]
        taken_ids = {job.id for job in taken}
        refused = {lane_of(job).rate for job in jobs if job.rate_key and job.id not in taken_ids}
        pause = min((wait for rate in refused if (wait := slots.rates[rate].wait) > 0), default=LONGEST_WAIT_SECONDS)
        if (waited := waited + pause) >= LONGEST_WAIT_SECONDS:
            return taken
        connection.execute(select(func.pg_sleep(pause)))


def read_corrected_slots(connection: Connection, lanes: Collection[Lane], is_dispatch: bool) -> Slots:
    """Return slots as `read_slots` does, after moving starts that are in the future to now, under their keys' locks."""
    slots = read_slots(connection, lanes, is_dispatch)
    if ahead := {rate.key for rate, use in slots.rates.items() if use.is_ahead}:
        lock(connection, (), ahead)
        correct_starts(connection, ahead)
        slots = read_slots(connection, lanes, is_dispatch)
    return slots


def _await_handler(connection: Connection, job_ids: Collection[UUID]) -> None:
    # SKIP LOCKED: a row's holder decides on the job. A job that is already withheld is not written again.
    strange = select(Job.id).where(Job.id.in_(job_ids), *may_start, Job.dispatched_at.is_distinct_from(NO_HANDLER))
    locked = strange.with_for_update(skip_locked=True).cte("locked")
    connection.execute(update(Job).where(Job.id == locked.c.id).values(dispatched_at=NO_HANDLER))
