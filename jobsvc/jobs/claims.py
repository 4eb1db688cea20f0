"""Claims waiting jobs that must be dispatched to RQ, by `dispatched_at`.

`dispatched_at` is a claim, written before the job is enqueued. If that fails, or Redis loses the job,
`claim_missing` claims it again; a duplicate dispatch is harmless. A job that can't start is withheld
with an infinite `dispatched_at`: until its queue is resumed, or its keys have free slots, see `withheld`.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, literal, null, select, text, update

from jobsvc.db.conditions import IS_IN_RQ, IS_WITHHELD_BY_PAUSE
from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, seconds, seconds_until
from jobsvc.jobs.admission import WITHHELD, paused
from jobsvc.states import STARTABLE, Status


class EntryChange(Enum):
    """How a dispatch changes RQ's entry of a job whose plan was changed while it waited."""

    REPLACE = "replace"  # remove the entry, and enqueue or schedule the job anew
    UPDATE = "update"  # leave it in its place, with another timeout and other retries


class Dispatch(NamedTuple):
    """A job's data for RQ, to enqueue or schedule it. Durations are in seconds.

    retry_intervals: of the retries after this start. wait: until `due_at` by Postgres' clock; ≤ 0 if due.
    is_claimed: if False and the job is due, don't enqueue it; `claim_due` decides on it.
    change: None for a job that has no entry in RQ, or another dispatch of the same plan.
    """

    id: str
    type: str
    queue: str
    timeout: float
    retry_intervals: list[float]
    due_at: datetime
    wait: float
    is_claimed: bool = True
    traceparent: str | None = None
    change: EntryChange | None = None

    @property
    def job_id(self) -> UUID:
        """The id as a UUID, made at each call."""
        return UUID(self.id)


_waits = Job.status.in_(STARTABLE)
_is_dispatched = Job.dispatched_at >= Job.due_at
_is_not_dispatched = Job.dispatched_at.is_(None) | (Job.dispatched_at < Job.due_at)


def _is_served(queue: str) -> ColumnElement[bool]:
    # A constant, not the column: Postgres checks it once, and reads no row of a paused queue, however many wait.
    return literal(queue).not_in(paused)


class DueJobs(NamedTuple):
    """Due jobs that were claimed, and the keys of others, which are withheld until they are claimed by their keys."""

    free: list[Dispatch]
    concurrency_keys: set[str]
    rate_keys: set[str]
    has_more: bool


@retrying
def claim_due_jobs(limit: int) -> DueJobs:
    """Claim up to `limit` jobs that are due and not in RQ, the longest due first. No two callers get the same one.

    Withholds jobs that can't start now, and all that have a key: so the longest due of all its jobs gets a free slot.
    """
    due = select(Job.id).where(_waits, _is_not_dispatched, Job.due_at <= now()).order_by(Job.due_at).limit(limit)
    is_free = Job.concurrency_key.is_(None) & Job.rate_key.is_(None) & Job.queue.not_in(paused)
    with transaction() as connection:
        checked = _claim_rows(connection, due, case((is_free, now()), else_=WITHHELD))
    free = [as_dispatch(job) for job in checked if job.is_in_rq]
    concurrency_keys = {job.concurrency_key for job in checked if job.concurrency_key}
    rate_keys = {job.rate_key for job in checked if job.rate_key}
    return DueJobs(by_due_time(free), concurrency_keys, rate_keys, has_more=len(checked) == limit)


@retrying
def claim_resumed(queue: str, limit: int) -> list[Dispatch]:
    """Claim up to `limit` jobs that were withheld while this queue was paused; none if it still is."""
    withheld = select(Job.id).where(text(IS_WITHHELD_BY_PAUSE), Job.queue == queue)
    with transaction() as connection:
        return claim(connection, withheld.where(_is_served(queue)).order_by(Job.due_at).limit(limit))


@retrying
def claim_missing(queue: str, head: UUID | None, grace_seconds: float, limit: int) -> list[Dispatch]:
    """Claim up to `limit` jobs of this queue that RQ must have lost.

    head: the job at the head of RQ's queue, None if that is empty. A queue is served in order: a waiting
        job dispatched well before the head is no longer in it, and an empty queue has none.
    grace_seconds: how long a job may be between RQ's queue and its start.
    """
    # A job that was moved to another queue may be left at the head; then it is not known what is missing.
    at_head = select(Job.dispatched_at).where(Job.id == head, _waits, Job.queue == queue)
    served_until = now() if head is None else at_head.scalar_subquery()
    missing = select(Job.id).where(_waits, _is_dispatched, Job.queue == queue)
    missing = missing.where(Job.dispatched_at < served_until - seconds(grace_seconds), _is_served(queue))
    with transaction() as connection:
        return claim(connection, missing.order_by(Job.dispatched_at).limit(limit))


def claim_known(job_ids: Collection[UUID]) -> tuple[dict[str, Status], list[Dispatch]]:
    """Return the status of each id that is a job, and dispatches for jobs that are in RQ or not yet due.

    The jobs in RQ are claimed again; ids without a job are left out.
    """
    if not job_ids:
        return {}, []
    ids = list(job_ids)
    with transaction() as connection:
        statuses = connection.execute(select(Job.id, Job.status).where(Job.id.in_(ids)))
        known = {str(id_): Status(status) for id_, status in statuses}
        claimed = claim(connection, select(Job.id).where(Job.id.in_(ids), text(IS_IN_RQ)))
        wait = seconds_until(Job.due_at).label("wait")
        later = connection.execute(select(Job, wait).where(Job.id.in_(ids), _waits, Job.due_at > now())).all()
        return known, by_due_time([*claimed, *map(as_dispatch, later)])


def claim(connection: Connection, wanted: Select[Any]) -> list[Dispatch]:
    """Claim the selected jobs, within the caller's transaction; skips locked ones. The longest due come first."""
    return by_due_time(map(as_dispatch, _claim_rows(connection, wanted, now())))


def _claim_rows(connection: Connection, wanted: Select[Any], dispatched_at: Any) -> Sequence[Row[Any]]:
    # A CTE: Postgres may run a subquery with LIMIT more than once and lock other rows each time.
    locked = wanted.with_for_update(skip_locked=True).cte("locked")
    claim = (
        update(Job)
        .where(Job.id == locked.c.id)
        .values(dispatched_at=dispatched_at)
        .returning(Job, seconds_until(Job.due_at).label("wait"), (Job.dispatched_at < WITHHELD).label("is_in_rq"))
    )
    return connection.execute(claim).all()


def by_due_time(dispatches: Iterable[Dispatch]) -> list[Dispatch]:
    """Return these dispatches, the longest due first."""
    return sorted(dispatches, key=lambda dispatch: dispatch.due_at)


def as_dispatch(job: Any) -> Dispatch:
    """Return the dispatch of a row that has a job's columns and `wait` (seconds until it is due)."""
    return Dispatch(
        id=str(job.id),
        type=job.type,
        queue=job.queue,
        timeout=job.timeout,
        retry_intervals=last_intervals(job, job.max_attempts - job.attempts - 1),
        due_at=job.due_at,
        wait=float(job.wait),
        traceparent=job.traceparent,
    )


def last_intervals(job: Any, retries: int) -> list[float]:
    """Return the intervals (seconds) of a job's last `retries` retries."""
    return list(job.retry_intervals[-retries:]) if retries > 0 else []


@retrying
def release(job_ids: Iterable[UUID]) -> None:
    """Release the claims on these jobs, which did not reach RQ."""
    with transaction() as connection:
        connection.execute(update(Job).where(Job.id.in_(list(job_ids)), _waits).values(dispatched_at=null()))


def release_due(job_ids: Iterable[UUID]) -> None:
    """Release the claims on the given jobs that are due and count as in RQ, but have no entry left there."""
    with transaction() as connection:
        # SKIP LOCKED: a row's holder may keep it for long; a sweep finds the job if it is not dispatched again then.
        due = select(Job.id).where(Job.id.in_(list(job_ids)), text(IS_IN_RQ), Job.due_at <= now())
        _claim_rows(connection, due, null())


def seconds_to_next() -> float | None:
    """Return the seconds until the next job that is not in RQ is due, at least 0; None if there is none."""
    with transaction() as connection:
        wait = connection.scalar(select(seconds_until(func.min(Job.due_at))).where(_waits, _is_not_dispatched))
    return None if wait is None else max(float(wait), 0.0)
