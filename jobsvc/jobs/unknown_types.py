"""Jobs that a worker refused because it has no handler for their type. They wait for a worker that has one.

They are not dispatched, so that they cost other workers nothing. A worker polls Postgres for jobs of its queues and
types, and starts them. Stock workers can't poll; for them the relay dispatches a few jobs (see `offers`).
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Text, Uuid, bindparam, select, text

from jobsvc.db.conditions import AWAITS_HANDLER, IS_DISPATCHED, PAUSED_QUEUES
from jobsvc.db.engine import retrying, statement, transaction
from jobsvc.db.models import Job
from jobsvc.jobs.admission import NO_HANDLER
from jobsvc.jobs.claims import Dispatch, claim


class Waiting(NamedTuple):
    """The number of jobs of a queue and type that wait for a handler, counted up to a limit."""

    queue: str
    type: str
    jobs: int


# Reads one range of the index jobs_awaiting_handler for each queue and type, however many other jobs wait.
_first = f"""
    SELECT id, due_at FROM jobs
    WHERE queue = wanted_queue.name AND type = wanted_type.name AND {AWAITS_HANDLER}
    AND (expires_at IS NULL OR expires_at > now())
    ORDER BY due_at LIMIT :most
"""  # noqa: S608  # put together from constants
_wanted = """
    FROM unnest(:queues) WITH ORDINALITY AS wanted_queue (name, place)
    CROSS JOIN unnest(:types) AS wanted_type (name)
"""
_not_paused = f"wanted_queue.name NOT IN {PAUSED_QUEUES}"

_count = text(
    f"""
    SELECT wanted_queue.name, count(*) AS jobs
    {_wanted} CROSS JOIN LATERAL ({_first}) AS found
    WHERE {_not_paused}
    GROUP BY wanted_queue.name
    """
)

# The order of the queues is their priority. FOR UPDATE: no two callers get the same job.
_claim = text(
    f"""
    WITH wanted AS MATERIALIZED (
        SELECT found.id, place, found.due_at
        {_wanted} CROSS JOIN LATERAL ({_first} FOR UPDATE SKIP LOCKED) AS found
        WHERE {_not_paused}
        ORDER BY place, found.due_at LIMIT :most
    ), claimed AS (
        UPDATE jobs SET dispatched_at = now() FROM wanted WHERE jobs.id = wanted.id
        RETURNING jobs.id, place, wanted.due_at
    )
    SELECT id FROM claimed ORDER BY place, due_at
    """  # noqa: S608
).columns(id=Uuid)


def _asked(queues: Sequence[str], types: Collection[str], most: int) -> dict[str, Any]:
    return {"queues": list(queues), "types": list(types), "most": most}


def _bound(query: Any) -> Any:
    arrays = [bindparam("queues", type_=ARRAY(Text)), bindparam("types", type_=ARRAY(Text))]
    return query.bindparams(*arrays, bindparam("most", type_=Integer))


_count, _claim = _bound(_count), _bound(_claim)


def count_awaiting(queues: Sequence[str], types: Collection[str], most: int) -> dict[str, int]:
    """Count jobs that wait for a handler, by queue: up to `most` for each of these queues and types."""
    with statement() as connection:
        return {row.name: row.jobs for row in connection.execute(_count, _asked(queues, types, most))}


def claim_awaiting(queues: Sequence[str], types: Collection[str], most: int) -> list[UUID]:
    """Claim up to `most` jobs that wait for a handler, for the caller to start; no two callers get the same one.

    Returns their ids in the order of `queues`, the longest due first, without jobs of paused queues.
    """
    with statement() as connection:
        return list(connection.scalars(_claim, _asked(queues, types, most)))


@retrying
def claim_offers(queue: str, type_: str, most: int) -> list[Dispatch]:
    """Claim up to `most` jobs of this queue and type that wait for a handler, for the relay to dispatch."""
    with transaction() as connection:
        ids = list(connection.scalars(_claim, _asked([queue], [type_], most)))
        return claim(connection, select(Job.id).where(Job.id.in_(ids))) if ids else []


class Offered(NamedTuple):
    """Offered jobs by their state: refused again, or still in RQ's queue."""

    refused: list[UUID]
    in_rq: list[UUID]


def sort_offers(job_ids: Collection[UUID]) -> Offered:
    """Return which of these jobs were refused again, and which are still in RQ. All others have started."""
    stands = select(Job.id, Job.dispatched_at == NO_HANDLER).where(Job.id.in_(job_ids), text(IS_DISPATCHED))
    with statement() as connection:
        found = connection.execute(stands).all()
    return Offered([id_ for id_, refused in found if refused], [id_ for id_, refused in found if not refused])


class Refused(NamedTuple):
    """A job that waits for a handler."""

    job_id: UUID
    type: str
    concurrency_key: str | None


def find_refused(job_ids: Collection[UUID]) -> list[Refused]:
    """Return the given jobs that wait for a handler; they don't count against their concurrency limits."""
    refused = select(Job.id, Job.type, Job.concurrency_key).where(Job.id.in_(job_ids), text(AWAITS_HANDLER))
    with statement() as connection:
        return [Refused(*row) for row in connection.execute(refused)]


# Loose index scan: one step for each queue and type, however many jobs each has.
_kinds = text(
    f"""
    WITH RECURSIVE step (queue, type) AS (
        (SELECT queue, type FROM jobs WHERE {AWAITS_HANDLER} ORDER BY queue, type LIMIT 1)
        UNION ALL
        SELECT following.queue, following.type FROM step CROSS JOIN LATERAL (
            SELECT queue, type FROM jobs
            WHERE {AWAITS_HANDLER} AND (queue, type) > (step.queue, step.type)
            ORDER BY queue, type LIMIT 1
        ) AS following
    )
    SELECT queue, type, (
        SELECT count(*) FROM (
            SELECT FROM jobs WHERE queue = step.queue AND type = step.type AND {AWAITS_HANDLER} LIMIT :most
        ) AS bounded
    ) AS jobs
    FROM step LIMIT :kinds
    """  # noqa: S608
)


def awaited_types(kinds: int, most: int) -> list[Waiting]:
    """Return up to `kinds` pairs of queue and type with jobs that wait for a handler, each counted up to `most`."""
    with statement() as connection:
        return [Waiting(*row) for row in connection.execute(_kinds, {"kinds": kinds, "most": most})]
