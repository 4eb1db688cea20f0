"""What the property tests choose from: few names, so that jobs meet each other."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from jobsvc.db.engine import engine
from jobsvc.jobs import Filter, NewJob, OnConflict
from jobsvc.jobs.releases import CANCEL, RUN
from jobsvc.states import Outcome, Status
from tests.properties.sessions import Timing
from tests.properties.trail import Trail

QUEUES = ("default", "low")
TYPES = ("TEST_JOB", "OTHER", "WEBHOOK")

queue = st.sampled_from(QUEUES)
worker = st.sampled_from(["one", "other"])
known_types = st.sampled_from([None, ["TEST_JOB", "WEBHOOK"]])

timing = st.sampled_from([*[Timing.ALONE] * 5, *Timing])
number = st.integers(0, 6)
numbers = st.lists(number, min_size=1, max_size=4)

first_timing = st.sampled_from([Timing.WITH_NEXT, Timing.OPEN_AT_ROW, Timing.OPEN_AT_COMMIT])
racing = st.sampled_from(["start", "start", "finish", "finish", "submit", "retry", "cancel", "delete", "release"])
"""What runs at the same time as another one of these."""

endings = st.lists(st.deferred(lambda: ending), min_size=4, max_size=4)

duty = st.sampled_from(["expire", "recover", "prune", "fold", "release", "find", "prune starts", "tick"])
"""A part of a relay's sweep."""

ending = st.one_of(
    st.tuples(st.sampled_from([Outcome.COMPLETED, Outcome.FAILED, Outcome.DISCARDED]), st.none()),
    st.tuples(st.just(Outcome.FAILED), st.just(30.0)),
    st.tuples(st.just(Outcome.HANDED_BACK), st.just(0.0)),
    st.tuples(st.sampled_from([Outcome.TIMEOUT, Outcome.LOST, Outcome.CANCELLED]), st.none()),
    st.tuples(st.just(Outcome.SNOOZED), st.sampled_from([0.0, 30.0])),
)
"""How an attempt ends, and after how many seconds the job is to run again."""

filters = st.builds(
    Filter,
    statuses=st.sampled_from([(), (Status.FAILED,), (Status.PENDING, Status.CANCELLED)]),
    queue=st.sampled_from([None, "low"]),
    tags=st.sampled_from([(), ("a",)]),
)


@dataclass(frozen=True)
class Wanted:
    """A new job, and what it depends on: jobs by their number (`Machine.job`), others of its request by position."""

    job: NewJob
    on_jobs: list[int]
    on_positions: list[int]
    on_failure: str


def _build(keys: tuple[str, int] | None, rate: tuple[str, int, float] | None, **given: Any) -> NewJob:
    if keys:
        given["concurrency_key"], given["concurrency_limit"] = keys
    if rate:
        given["rate_key"], given["rate_limit"], given["rate_per"] = rate
    return NewJob(payload={}, timeout=180, **given)


new_job = st.builds(
    _build,
    type=st.sampled_from(["TEST_JOB", "TEST_JOB", "OTHER"]),
    queue=queue,
    retry_intervals=st.sampled_from([[], [1.0], [1.0, 5.0]]),
    delay=st.sampled_from([None, None, 30.0]),
    expires_in=st.sampled_from([None, None, 20.0]),
    unique_key=st.sampled_from([None, None, "u1", "u2"]),
    on_conflict=st.sampled_from([OnConflict.RETURN, OnConflict.RETURN, OnConflict.REPLACE, OnConflict.REJECT]),
    keys=st.sampled_from([None, None, ("c1", 1), ("c1", 2), ("c2", 1)]),
    rate=st.sampled_from([None, None, None, ("r1", 1, 60.0), ("r1", 2, 60.0), ("r1", 2, 5.0), ("r2", 1, 1.0)]),
    webhook_url=st.sampled_from([None, None, None, "https://example.com/"]),
    tags=st.sampled_from([None, ["a"]]),
)

wanted = st.builds(
    Wanted,
    job=new_job,
    on_jobs=st.one_of(st.just([]), numbers),
    on_positions=st.one_of(st.just([]), st.lists(st.integers(0, 3), max_size=2)),
    on_failure=st.sampled_from([CANCEL, RUN]),
)

changes = st.fixed_dictionaries(
    {},
    optional={
        "payload": st.just({"steps": 2}),
        "queue": queue,
        "delay": st.sampled_from([None, 0.0, 30.0]),
        "retry_intervals": st.sampled_from([[], [1.0, 5.0]]),
        "timeout": st.just(60.0),
        "expires_in": st.sampled_from([None, 20.0]),
        "tags": st.sampled_from([None, ["a", "b"]]),
    },
)
"""Changes of a waiting job, as by PATCH."""

sql_options = st.fixed_dictionaries(
    {},
    optional={
        "queue": queue,
        "delay": st.just(30),
        "expiresIn": st.just(20),
        "uniqueKey": st.sampled_from(["u1", "u2"]),
        "rateLimit": st.sampled_from([{"key": "r1", "limit": 1, "per": 5}, {"key": "r2", "limit": 3, "per": 60}]),
        "concurrencyKey": st.sampled_from(["c1", "c2"]),
        "retry": st.just({"max": 1, "interval": 1}),
        "webhookUrl": st.just("https://example.com/"),
        "tags": st.just(["a"]),
    },
)
"""Options of jobsvc_enqueue."""

_TIMES = {
    "jobs": [
        "created_at",
        "run_at",
        "expires_at",
        "expiry_met",
        "due_at",
        "lease_expires_at",
        "started_at",
        "finished_at",
        "cancel_requested_at",
    ],
    "attempts": ["started_at", "finished_at"],
    "schedules": ["next_run_at", "last_run_at"],
    "rate_starts": ["started_at"],
}


def move_into_past(trail: Trail, seconds: float) -> None:
    """Let time pass: move all times into the past."""
    for table, columns in _TIMES.items():
        moved = [f"{column} = {column} - interval '{seconds} s'" for column in columns]
        if table == "jobs":  # of a withheld job it is no real time
            moved.append(
                "dispatched_at = CASE WHEN dispatched_at < '9999-12-31 00:00:00+00'"
                f" THEN dispatched_at - interval '{seconds} s' ELSE dispatched_at END"
            )
        trail.execute(f"UPDATE {table} SET {', '.join(moved)}")


def enqueue_in_sql(options: dict[str, Any], commits: bool) -> None:
    """Enqueue a job by the SQL function; a taken key that is to be rejected, or can't be replaced, is passed over."""
    with suppress(IntegrityError), engine().connect() as connection:
        connection.execute(text("SELECT jobsvc_enqueue('TEST_JOB', '{}', :options)"), {"options": json.dumps(options)})
        connection.commit() if commits else connection.rollback()
