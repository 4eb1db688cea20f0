"""Lanes of withheld jobs, and the longest due jobs of each.

The withheld jobs of a key are in lanes: all jobs of a lane may start, or none. So a key's lanes are stepped through
in its index, and only jobs that may start are read, however many others are in front of them.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from jobsvc.db.conditions import IS_WITHHELD, LANE_OF_CONCURRENCY_KEY, LANE_OF_RATE_KEY, PAUSED_QUEUES
from jobsvc.db.models import Moment
from jobsvc.jobs.slots import Lane


class Kind(StrEnum):
    """A kind of key: the name of its column."""

    CONCURRENCY = "concurrency_key"
    RATE = "rate_key"


MAX_CANDIDATES = 20_000
"""Number of jobs that one call reads, of all lanes."""

_COLUMNS = {
    "concurrency_key": "text",
    "concurrency_limit": "int",
    "rate_key": "text",
    "rate_limit": "int",
    "rate_per": "double precision",
    "queue": "text",
}
_NOT_NULL = {
    "concurrency_key": "coalesce(concurrency_key, '')",
    "concurrency_limit": "coalesce(concurrency_limit, 0)",
    "rate_key": "coalesce(rate_key, '')",
    "rate_limit": "coalesce(rate_limit, 0)",
    "rate_per": "coalesce(rate_per, 0)",
    "queue": "queue",
}
_COLUMNS_OF = {Kind.CONCURRENCY: LANE_OF_CONCURRENCY_KEY, Kind.RATE: LANE_OF_RATE_KEY}
_TYPED = ", ".join(f"{name} {type_}" for name, type_ in _COLUMNS.items())
_SELECTED = ", ".join(f"{expression} AS {name}" for name, expression in _NOT_NULL.items())


def _name(expression: str) -> str:
    return expression.removeprefix("coalesce(").partition(",")[0]


def _lanes_of(key: Kind, columns: Sequence[str]) -> Any:
    """Return the query of a key's lanes: a loose index scan, one step for each lane, however many jobs it has."""
    order, last = ", ".join(columns), ", ".join(f"step.{_name(one)}" for one in columns)
    return text(
        f"""
        WITH RECURSIVE step AS (
            SELECT {", ".join(_COLUMNS)}, 0 AS steps
            FROM jsonb_to_recordset(:lanes) AS wanted ({_TYPED})
            UNION ALL
            SELECT following.*, steps + 1 FROM step CROSS JOIN LATERAL (
                SELECT {_SELECTED} FROM (
                    SELECT * FROM jobs
                    WHERE {key} = step.{key} AND ({order}) > ({last}) AND {IS_WITHHELD}
                    ORDER BY {order} LIMIT 1
                ) AS first
            ) AS following
            WHERE steps < :most
        )
        SELECT {key} AS key, {", ".join(_COLUMNS)}, steps, queue IN {PAUSED_QUEUES} AS is_paused
        FROM step WHERE steps > 0
        """  # noqa: S608  # put together from constants
    ).bindparams(bindparam("lanes", type_=JSONB))


_lanes = {kind: _lanes_of(kind, columns) for kind, columns in _COLUMNS_OF.items()}


def read_lanes(
    connection: Connection, kind: Kind, keys: Collection[str], most: int, after: Mapping[str, Lane]
) -> tuple[set[Lane], dict[str, Lane]]:
    """Return up to `most` lanes of each of these keys, and the last of those keys that may have more.

    Lanes of paused queues are left out. after: the lane after which to go on, by key.
    """
    wanted = [{**after.get(key, Lane())._asdict(), kind: key} for key in sorted(keys)]
    lanes, reached = set[Lane](), dict[str, Lane]()
    for key, *columns, steps, is_paused in connection.execute(_lanes[kind], {"lanes": wanted, "most": most}):
        lane = Lane(*columns)
        if steps == most:
            reached[key] = lane
        if not is_paused:
            lanes.add(lane)
    return lanes, reached


def _candidates_of(kind: Kind) -> str:
    alike = " AND ".join(f"{one} = lane.{_name(one)}" for one in (kind, *_COLUMNS_OF[kind]))
    return f"""
        SELECT place, id, due_at FROM lane CROSS JOIN LATERAL (
            SELECT id, due_at FROM jobs
            WHERE {alike} AND {IS_WITHHELD} AND (expires_at IS NULL OR expires_at > now())
            ORDER BY due_at LIMIT lane.most
        ) AS found
        WHERE lane.{kind} <> ''
    """  # noqa: S608


# Each lane is read by an index on its concurrency key, or if it has none, on its rate key.
_candidates = text(
    f"""
    WITH lane AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(:lanes) AS lane (place int, most int, {_TYPED})
    )
    {_candidates_of(Kind.CONCURRENCY)}
    UNION ALL
    {_candidates_of(Kind.RATE)} AND lane.concurrency_key = ''
    ORDER BY due_at, id
    """  # noqa: S608
).bindparams(bindparam("lanes", type_=JSONB))


def read_candidates(connection: Connection, free: Mapping[Lane, int]) -> list[tuple[UUID, Lane]]:
    """Return the longest due withheld jobs of each of these lanes, at most as many as are free, in due order."""
    lanes = list(free)
    most = max(MAX_CANDIDATES // len(lanes), 1)
    records = [{**lane._asdict(), "place": n, "most": min(free[lane], most)} for n, lane in enumerate(lanes)]
    found = connection.execute(_candidates.columns(id=Uuid, due_at=Moment), {"lanes": records}).all()
    # Of a lane that was not read as far, a job may be missing that has been due longer than others: those wait.
    counts, last = Counter(row.place for row in found), {row.place: row.due_at for row in found}
    cut = [last[place] for place, count in counts.items() if count == most < free[lanes[place]]]
    return [(row.id, lanes[row.place]) for row in found if not cut or row.due_at <= min(cut)]
