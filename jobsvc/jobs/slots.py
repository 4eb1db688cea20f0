"""Free slots of concurrency keys and rate limits: how many more jobs may start, or be dispatched, now."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Boolean, Connection, Double, Integer, Text, bindparam, text

from jobsvc.db.conditions import IS_IN_RQ, IS_RUNNING, PAUSED_QUEUES
from jobsvc.db.models import Job
from jobsvc.handlers.rate_limit import MAX_RATE_LIMIT

MAX_CONCURRENCY_LIMIT = 1000
"""Largest concurrency limit of a key."""

MOST_IN_RQ = 2000
"""Number of jobs with one rate key that are in RQ at most, since they are counted at each dispatch."""


SHORT_SECONDS = 0.5
"""Period (seconds) below which a rate limit is short: the time from a dispatch to its start is a large part of it."""

AHEAD_SECONDS = 0.01
"""Seconds by which jobs of a short rate limit are dispatched early; the start waits if they are faster."""


class Lane(NamedTuple):
    """What the jobs in one lane have in common: keys, limits and queue. All of them may start, or none.

    A key that the jobs don't have is "", and its limit 0.
    """

    concurrency_key: str = ""
    concurrency_limit: int = 0
    rate_key: str = ""
    rate_limit: int = 0
    rate_per: float = 0.0
    queue: str = ""

    @property
    def rate(self) -> "Rate":
        """The rate limit of these jobs."""
        return Rate(self.rate_key, self.rate_limit, self.rate_per)


class Rate(NamedTuple):
    """A rate limit: at most `limit` starts with the key in any `per` seconds."""

    key: str
    limit: int
    per: float


class RateUse(NamedTuple):
    """How far a rate limit is used up.

    used: starts in the last `per` seconds. in_rq: jobs with the key that are in RQ, counted up to MOST_IN_RQ.
    wait: seconds until a slot is free, if the jobs in RQ start now; 0 if one is free.
    is_ahead: True if the last start is later than now, since Postgres' clock was set back.
    """

    used: int
    in_rq: int
    wait: float
    is_ahead: bool = False


class Slots:
    """The slots that are free. `take` takes one of each kind that a job needs, or none."""

    def __init__(self, occupied: Mapping[str, int], rates: Mapping[Rate, RateUse]) -> None:
        self.rates = rates
        self._occupied = Counter(occupied)
        self._started: Counter[str] = Counter()  # by rate key
        self._taken: defaultdict[str, set[Rate]] = defaultdict(set)

    def free(self, lane: Lane) -> int:
        """Return how many jobs of this lane may start; 0 or less if none may."""
        free = MAX_RATE_LIMIT
        if lane.concurrency_key:
            free = lane.concurrency_limit - self._occupied[lane.concurrency_key]
        if lane.rate_key:
            # All that are taken start at the same time, so this job counts within the limits of the others, too.
            rates = {lane.rate, *self._taken[lane.rate_key]}
            free = min(free, *(self._left(rate) for rate in rates))
        return free

    def take(self, lane: Lane) -> bool:
        """Take the slots that a job of this lane needs. Returns False, and takes none, if one of them is not free."""
        if self.free(lane) < 1:
            return False
        self._occupied[lane.concurrency_key] += 1
        self._started[lane.rate_key] += 1
        self._taken[lane.rate_key].add(lane.rate)
        return True

    def _left(self, rate: Rate) -> int:
        use, started = self.rates[rate], self._started[rate.key]
        return min(rate.limit - use.used, MOST_IN_RQ) - use.in_rq - started


lane_columns = (Job.concurrency_key, Job.concurrency_limit, Job.rate_key, Job.rate_limit, Job.rate_per, Job.queue)


def lane_of(job: Any) -> Lane:
    """Return the lane of a row that has `lane_columns`."""
    return Lane(
        concurrency_key=job.concurrency_key or "",
        concurrency_limit=job.concurrency_limit or 0,
        rate_key=job.rate_key or "",
        rate_limit=job.rate_limit or 0,
        rate_per=job.rate_per or 0.0,
        queue=job.queue,
    )


# Jobs dispatched to a paused queue don't count: they can't start.
_IN_RQ = f"({IS_IN_RQ} AND queue NOT IN {PAUSED_QUEUES} AND :is_dispatch)"

_occupied = text(
    f"""
    SELECT concurrency_key, count(*) FROM jobs
    WHERE concurrency_key = ANY(:keys) AND ({IS_RUNNING} OR {_IN_RQ})
    GROUP BY concurrency_key
    """  # noqa: S608  # put together from constants
).bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("is_dispatch", type_=Boolean))

_MOMENT = f"""(
    statement_timestamp()
    + CASE WHEN :is_dispatch AND per < {SHORT_SECONDS} THEN {AHEAD_SECONDS} ELSE 0 END * interval '1 s'
)"""

# Starts have consecutive numbers, so that three rows of an index show how many are in a window of any limit.
_used = text(
    f"""
    WITH used AS MATERIALIZED (
        SELECT place, key, per, most, first, last.number - first + 1 AS used, last.started_at, (
            SELECT count(*) FROM (
                SELECT FROM jobs WHERE rate_key = rate.key AND {_IN_RQ} LIMIT {MOST_IN_RQ}
            ) AS bounded
        ) AS in_rq
        FROM unnest(:keys, :limits, :pers) WITH ORDINALITY AS rate (key, most, per, place)
        LEFT JOIN LATERAL (
            SELECT number, started_at FROM rate_starts WHERE key = rate.key ORDER BY number DESC LIMIT 1
        ) AS last ON true
        LEFT JOIN LATERAL (
            SELECT number AS first FROM rate_starts
            WHERE key = rate.key AND started_at > {_MOMENT} - per * interval '1 s'
            ORDER BY started_at, number LIMIT 1
        ) AS earliest ON true
    )
    SELECT coalesce(used, 0) AS used, in_rq, CASE WHEN coalesce(used, 0) + in_rq >= most THEN coalesce((
        SELECT extract(epoch FROM rate_starts.started_at - {_MOMENT}) FROM rate_starts
        WHERE rate_starts.key = used.key AND number = first + used + in_rq - most AND in_rq < most
    ), 0) + per ELSE 0 END::double precision AS wait, coalesce(started_at > statement_timestamp(), false) AS is_ahead
    FROM used ORDER BY place
    """  # noqa: S608
).bindparams(
    bindparam("keys", type_=ARRAY(Text)),
    bindparam("limits", type_=ARRAY(Integer)),
    bindparam("pers", type_=ARRAY(Double)),
    bindparam("is_dispatch", type_=Boolean),
)


def read_slots(connection: Connection, lanes: Iterable[Lane], is_dispatch: bool) -> Slots:
    """Return the slots of these lanes. is_dispatch: True if jobs in RQ occupy slots, too (see also AHEAD_SECONDS).

    Exact as long as the keys are locked, see `admission`.
    """
    lanes = set(lanes)
    occupied: dict[str, int] = {}
    if keys := sorted({lane.concurrency_key for lane in lanes} - {""}):
        found = connection.execute(_occupied, {"keys": keys, "is_dispatch": is_dispatch})
        occupied = dict(iter(found))
    rates = sorted({lane.rate for lane in lanes if lane.rate_key})
    return Slots(occupied, _read_rates(connection, rates, is_dispatch))


def _read_rates(connection: Connection, rates: list[Rate], is_dispatch: bool) -> dict[Rate, RateUse]:
    if not rates:
        return {}
    columns = {"keys": [rate.key for rate in rates], "limits": [rate.limit for rate in rates]}
    asked = {**columns, "pers": [rate.per for rate in rates], "is_dispatch": is_dispatch}
    return {rate: RateUse(*row) for rate, row in zip(rates, connection.execute(_used, asked), strict=True)}
