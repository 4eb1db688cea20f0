"""Claims withheld jobs that may start now, for their dispatch: those of keys that have a free slot."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, text

from jobsvc.db.conditions import IS_WITHHELD
from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs.admission import read_corrected_slots
from jobsvc.jobs.claims import Dispatch, by_due_time, claim, claim_due_jobs
from jobsvc.jobs.lanes import Kind, read_candidates, read_lanes
from jobsvc.jobs.slots import MOST_IN_RQ, Lane, Slots

MAX_LANES = 2000
"""Number of lanes that one call steps through, of all its keys; about 15 µs each."""

LONGEST_GATHERING = 0.05
"""Longest time (seconds) for which slots that become free are gathered, to dispatch their jobs together."""


class Wait(NamedTuple):
    """When a rate key may have its next free slot.

    is_in_rq: True if it has none until jobs that are in RQ have started.
    """

    seconds: float
    is_in_rq: bool = False


class Claimed(NamedTuple):
    """Claimed jobs, and what their keys' other jobs wait for.

    waits: by rate key, if a slot will be free by itself.
    reached: by key, the last lane that was read, of keys that may have more lanes than one call reads.
    """

    jobs: list[Dispatch]
    waits: dict[str, Wait]
    reached: dict[str, Lane]


@retrying
def claim_withheld(
    concurrency_keys: Collection[str], rate_keys: Collection[str], limit: int, after: Mapping[str, Lane] | None = None
) -> Claimed:
    """Claim withheld jobs of these keys, as many as there are free slots, up to `limit`, the longest due first.

    after: the lane after which to go on, of keys with more lanes than one call reads.
    """
    if not concurrency_keys and not rate_keys:
        return Claimed([], {}, {})
    with transaction() as connection:
        most = max(MAX_LANES // (len(concurrency_keys) + len(rate_keys)), 2)
        lanes, reached = set[Lane](), dict[str, Lane]()
        for kind, keys in ((Kind.CONCURRENCY, concurrency_keys), (Kind.RATE, rate_keys)):
            if keys:
                found, cut = read_lanes(connection, kind, keys, most, after or {})
                lanes |= found
                reached |= cut
        slots = read_corrected_slots(connection, lanes, is_dispatch=True)
        chosen = _choose(connection, slots, lanes, limit)
        claimed = claim(connection, select(Job.id).where(Job.id.in_(chosen), text(IS_WITHHELD))) if chosen else []
    return Claimed(claimed, _waits(slots, lanes, {lane.rate_key for lane in chosen.values()}), reached)


def claim_next(concurrency_keys: Iterable[str], limit: int) -> list[Dispatch]:
    """Claim withheld jobs of these concurrency keys like `claim_withheld`."""
    return claim_withheld(set(concurrency_keys), (), limit).jobs


def claim_due(limit: int) -> list[Dispatch]:
    """Claim up to `limit` jobs that are due and not in RQ, with a key or without; withhold those that can't start."""
    due = claim_due_jobs(limit)
    following: list[Dispatch] = []
    with suppress(StoreUnavailable):  # the others are claimed, and must be dispatched; a sweep finds these
        following = claim_withheld(due.concurrency_keys, due.rate_keys, limit).jobs
    return by_due_time([*due.free, *following])


def withheld_concurrency_keys(after: str, limit: int) -> list[str]:
    """Return up to `limit` concurrency keys that have withheld jobs, in order, starting after the key `after`."""
    return _read_keys(_concurrency_keys, after, limit)


def withheld_rate_keys(after: str, limit: int) -> list[str]:
    """Return up to `limit` rate keys that have withheld jobs, in order, starting after the key `after`."""
    return _read_keys(_rate_keys, after, limit)


def _choose(connection: Connection, slots: Slots, lanes: Iterable[Lane], limit: int) -> dict[UUID, Lane]:
    """Return the withheld jobs of these lanes that may start, up to `limit`, the longest due first."""
    free = {lane: count for lane in lanes if (count := min(slots.free(lane), limit)) > 0}
    if not free:
        return {}
    candidates = read_candidates(connection, free)
    # Race: slots are read after the candidates. If another process has claimed some of them in between, it took the
    # longest due of the same jobs: either they are counted now, or the caller finds them locked or not withheld.
    slots = read_corrected_slots(connection, free, is_dispatch=True)
    chosen: dict[UUID, Lane] = {}
    for job_id, lane in candidates:
        if len(chosen) < limit and slots.take(lane):
            chosen[job_id] = lane
    return chosen


def _waits(slots: Slots, lanes: Iterable[Lane], claimed: Collection[str]) -> dict[str, Wait]:
    waits: dict[str, Wait] = {}
    for lane in sorted(lanes):
        if not lane.rate_key:
            continue
        use = slots.rates[lane.rate]
        if lane.rate_key in claimed or use.in_rq >= MOST_IN_RQ:
            wait = Wait(min(LONGEST_GATHERING, lane.rate_per / 20))
        elif use.wait > 0:
            wait = Wait(use.wait, is_in_rq=use.in_rq >= lane.rate_limit)
        else:  # it waits for a slot of its concurrency key
            continue
        waits[lane.rate_key] = min(waits.get(lane.rate_key, wait), wait)
    return waits


# Loose index scan: one step for each key, however many jobs each has.
def _keys(column: str) -> Any:
    return text(
        f"""
        WITH RECURSIVE step (key, steps) AS (
            SELECT (SELECT min({column}) FROM jobs WHERE {column} > :after AND {IS_WITHHELD}), 1
            UNION ALL
            SELECT (SELECT min({column}) FROM jobs WHERE {column} > step.key AND {IS_WITHHELD}), steps + 1
            FROM step WHERE key IS NOT NULL AND steps < :most
        )
        SELECT key FROM step WHERE key IS NOT NULL
        """  # noqa: S608
    )


_concurrency_keys, _rate_keys = _keys("concurrency_key"), _keys("rate_key")


def _read_keys(query: Any, after: str, limit: int) -> list[str]:
    with transaction() as connection:
        return list(connection.scalars(query, {"after": after, "most": limit}))
