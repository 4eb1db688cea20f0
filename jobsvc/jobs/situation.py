"""Reads where a job is, and what it waits for, from Postgres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Integer, Text, Uuid, bindparam, text

from jobsvc.db.conditions import (
    AWAITS_HANDLER,
    HAS_NO_KEY,
    IS_BLOCKED,
    IS_IN_RQ,
    IS_RUNNING,
    IS_TO_DISPATCH,
    IS_WITHHELD,
    IS_WITHHELD_BY_PAUSE,
    PAUSED_QUEUES,
)
from jobsvc.db.engine import transaction
from jobsvc.db.sql import read_in_index_order
from jobsvc.errors import JobNotFound
from jobsvc.jobs.slots import Lane, Rate, RateUse, read_slots
from jobsvc.states import Outcome, Status

MOST_BEFORE = 10_000
"""Number up to which the jobs before a job are counted, so that a count is fast however many wait."""

MOST_RUNNING = 10
"""Number of running jobs of a concurrency key whose ids are read."""


class Place(StrEnum):
    """Where a waiting job is."""

    NOT_DISPATCHED = "not dispatched"  # not due yet, or the relay dispatches it next
    IN_RQ = "in RQ"
    WITHHELD = "withheld"
    AWAITS_HANDLER = "awaits handler"  # workers have refused it


class RateSituation(NamedTuple):
    """The rate limit of a waiting job, how far it is used up, and the number of withheld jobs that come before."""

    limit: Rate
    use: RateUse
    before: int


@dataclass(frozen=True)
class Situation:
    """A job without its payload and result, and the facts in Postgres that decide when it starts.

    now: the time of this situation, by Postgres' clock.
    place: of a waiting job; None if it runs or has ended.
    last_outcome: of the last attempt that has a row; None if none has.
    slots: number of slots of its concurrency key that are occupied: by running jobs and by others in RQ.
    running: ids of jobs of its concurrency key that run, MOST_RUNNING at most, the longest running first.
    rate: of a waiting job with a rate limit.
    before: number of jobs that come before it, up to MOST_BEFORE: those of its queue in RQ, with all that are to be
        dispatched before it; those withheld for the same reason; or those of its queue and type that await a handler.
    open_dependencies: of a BLOCKED job, the number of dependencies that have not ended; dependencies: id and status of
        the first MOST_RUNNING of them.
    in_rq: number of jobs in RQ, up to MOST_BEFORE each, by the name of another queue that is not paused.
    """

    now: datetime
    job_id: UUID
    type: str
    queue: str
    status: Status
    attempts: int
    max_attempts: int
    due_at: datetime
    timeout: float
    expires_at: datetime | None
    worker: str | None
    started_at: datetime | None
    lease_expires_at: datetime | None
    cancel_requested_at: datetime | None
    finished_at: datetime | None
    error_type: str | None
    last_outcome: Outcome | None
    place: Place | None
    queue_paused_at: datetime | None
    concurrency_key: str | None
    concurrency_limit: int | None
    rate: RateSituation | None
    slots: int
    running: Sequence[UUID]
    before: int
    in_rq: Mapping[str, int]
    on_dependency_failure: str | None
    open_dependencies: int | None
    dependencies: Sequence[Mapping[str, Any]]

    @property
    def is_due(self) -> bool:
        """True if its time has come."""
        return self.due_at <= self.now

    @property
    def is_expired(self) -> bool:
        """True if it has not started before it expired, so that the next sweep fails it."""
        return self.expires_at is not None and self.expires_at <= self.now and self.last_outcome is None


def _count(condition: str, order: str) -> str:
    # Sorted, so that Postgres reads a range of a partial index from its newest end: the oldest has most dead entries.
    return f"(SELECT count(*) FROM (SELECT FROM jobs WHERE {condition} ORDER BY {order} DESC LIMIT :most) AS bounded)"  # noqa: S608  # put together from constants


_IS_EARLIER = "due_at <= job.due_at AND (due_at, id) < (job.due_at, job.id)"
_BEFORE_IN_RQ = _count(
    f"queue = job.queue AND {IS_IN_RQ} AND dispatched_at <= job.dispatched_at"
    " AND (dispatched_at, due_at, id) < (job.dispatched_at, job.due_at, job.id)",
    "dispatched_at",
)
_IN_RQ = _count(f"queue = job.queue AND {IS_IN_RQ}", "dispatched_at")
_NOT_DISPATCHED = _count(f"{IS_TO_DISPATCH} AND {_IS_EARLIER}", "due_at")
_OF_TYPE = _count(f"queue = job.queue AND type = job.type AND {AWAITS_HANDLER} AND {_IS_EARLIER}", "due_at")
_OF_KEY = _count(
    f"concurrency_key = job.concurrency_key AND queue NOT IN {PAUSED_QUEUES} AND {IS_WITHHELD} AND {_IS_EARLIER}",
    "due_at",
)
_OF_RATE = _count(
    f"rate_key = job.rate_key AND queue NOT IN {PAUSED_QUEUES} AND {IS_WITHHELD} AND {_IS_EARLIER}", "due_at"
)
_OF_PAUSE = _count(f"queue = job.queue AND {IS_WITHHELD_BY_PAUSE} AND {_IS_EARLIER}", "due_at")

# Race: clock_timestamp(), since a job that the statement finds may have become due after its transaction began.
_read = text(
    f"""
    WITH job AS MATERIALIZED (
        SELECT clock_timestamp() AS now,
            id, type, queue, status, attempts, max_attempts, due_at, timeout, expires_at, worker, started_at,
            lease_expires_at, cancel_requested_at, finished_at, error->>'type' AS error_type,
            concurrency_key, concurrency_limit, rate_key, rate_limit, rate_per, depends_on, on_dependency_failure,
            CASE WHEN {IS_BLOCKED} THEN open_dependencies END AS open_dependencies,
            CASE WHEN {IS_IN_RQ} THEN dispatched_at END AS dispatched_at,
            CASE
                WHEN {AWAITS_HANDLER} THEN '{Place.AWAITS_HANDLER}'
                WHEN {IS_WITHHELD} THEN '{Place.WITHHELD}'
                WHEN {IS_IN_RQ} THEN '{Place.IN_RQ}'
                WHEN {IS_TO_DISPATCH} THEN '{Place.NOT_DISPATCHED}'
            END AS place
        FROM jobs WHERE id = :id
    )
    SELECT job.*,
        (SELECT outcome FROM attempts WHERE job_id = job.id ORDER BY fence DESC LIMIT 1) AS last_outcome,
        (SELECT paused_at FROM queues WHERE name = job.queue) AS queue_paused_at,
        (
            SELECT count(*) FROM jobs WHERE concurrency_key = job.concurrency_key AND id <> job.id
            AND job.place IS NOT NULL AND ({IS_RUNNING} OR ({IS_IN_RQ} AND queue NOT IN {PAUSED_QUEUES}))
        ) AS slots,
        ARRAY(
            SELECT id FROM jobs WHERE concurrency_key = job.concurrency_key AND {IS_RUNNING}
            AND job.place IS NOT NULL ORDER BY started_at LIMIT {MOST_RUNNING}
        ) AS running,
        CASE
            WHEN due_at > now THEN 0
            WHEN place = '{Place.IN_RQ}' THEN {_BEFORE_IN_RQ}
            WHEN place = '{Place.NOT_DISPATCHED}' THEN {_IN_RQ} + {_NOT_DISPATCHED}
            WHEN place = '{Place.AWAITS_HANDLER}' THEN {_OF_TYPE}
            WHEN place = '{Place.WITHHELD}' AND {HAS_NO_KEY} THEN {_OF_PAUSE}
            WHEN place = '{Place.WITHHELD}' AND concurrency_key IS NULL THEN before_of_rate
            WHEN place = '{Place.WITHHELD}' THEN {_OF_KEY}
            ELSE 0
        END AS before,
        before_of_rate,
        (
            SELECT coalesce(jsonb_object_agg(name, jobs), '{{}}') FROM unnest(:queues) AS other (name),
            LATERAL {_count(f"queue = other.name AND {IS_IN_RQ}", "dispatched_at")} AS counted (jobs)
            WHERE name <> job.queue AND name NOT IN {PAUSED_QUEUES} AND jobs > 0
            AND due_at <= now AND place IN ('{Place.IN_RQ}', '{Place.NOT_DISPATCHED}')
        ) AS in_rq,
        (
            SELECT coalesce(jsonb_agg(open), '[]') FROM (
                SELECT needed.id, needed.status FROM unnest(job.depends_on) WITH ORDINALITY AS wanted (id, n)
                JOIN dependencies ON dependency_id = wanted.id AND dependent_id = job.id AND is_open
                JOIN jobs AS needed ON needed.id = wanted.id
                WHERE job.open_dependencies IS NOT NULL ORDER BY n LIMIT {MOST_RUNNING}
            ) AS open
        ) AS dependencies
    FROM job, LATERAL (
        SELECT CASE WHEN place = '{Place.WITHHELD}' AND rate_key IS NOT NULL THEN {_OF_RATE} ELSE 0 END
    ) AS of_rate (before_of_rate)
    """  # noqa: S608
).bindparams(bindparam("id", type_=Uuid), bindparam("queues", type_=ARRAY(Text)), bindparam("most", type_=Integer))


def read_situation(job_id: UUID, queues: Sequence[str]) -> Situation:
    """Return where the job is, and what it waits for, as of one moment.

    queues: names of the queues whose jobs in RQ are counted. Raises JobNotFound and StoreUnavailable.
    """
    with transaction() as connection:
        connection.execute(read_in_index_order)
        found = connection.execute(_read, {"id": job_id, "queues": list(queues), "most": MOST_BEFORE}).one_or_none()
        if found is None:
            raise JobNotFound(f"no job has the id {job_id}")
        rate = _read_rate(connection, found)
    row: dict[str, Any] = dict(found._mapping)
    for name in ("dispatched_at", "depends_on", "rate_key", "rate_limit", "rate_per", "before_of_rate"):
        del row[name]  # others say what these mean
    return Situation(
        **row
        | {
            "job_id": row.pop("id"),
            "status": Status(row["status"]),
            "place": Place(row["place"]) if row["place"] else None,
            "last_outcome": Outcome(row["last_outcome"]) if row["last_outcome"] else None,
            "before": min(row["before"], MOST_BEFORE),
            "rate": rate,
        }
    )


def _read_rate(connection: Connection, job: Any) -> RateSituation | None:
    if job.rate_key is None or job.place is None:
        return None
    rate = Rate(job.rate_key, job.rate_limit, job.rate_per)
    use = read_slots(connection, [Lane(rate_key=rate.key, rate_limit=rate.limit, rate_per=rate.per)], True).rates[rate]
    return RateSituation(rate, use, min(job.before_of_rate, MOST_BEFORE))
