"""What the property tests choose from: few names, so that jobs meet each other."""

from typing import Any

from hypothesis import strategies as st

from jobsvc.jobs import Filter, NewJob
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

ending = st.one_of(
    st.tuples(st.sampled_from([Outcome.COMPLETED, Outcome.FAILED, Outcome.HANDED_BACK]), st.none()),
    st.tuples(st.sampled_from([Outcome.DISCARDED, Outcome.TIMEOUT, Outcome.LOST, Outcome.CANCELLED]), st.none()),
    st.tuples(st.just(Outcome.SNOOZED), st.sampled_from([0.0, 30.0])),
)
"""How an attempt ends, and after how many seconds the job is to run again."""

filters = st.builds(
    Filter,
    statuses=st.sampled_from([(), (Status.FAILED,), (Status.PENDING, Status.CANCELLED)]),
    queue=st.sampled_from([None, "low"]),
    tags=st.sampled_from([(), ("a",)]),
)


def _build(keys: tuple[str, int] | None, **given: Any) -> NewJob:
    if keys:
        given["concurrency_key"], given["concurrency_limit"] = keys
    return NewJob(payload={}, timeout=180, **given)


new_job = st.builds(
    _build,
    type=st.sampled_from(["TEST_JOB", "TEST_JOB", "OTHER"]),
    queue=queue,
    retry_intervals=st.sampled_from([[], [1.0], [1.0, 5.0]]),
    delay=st.sampled_from([None, None, 30.0]),
    expires_in=st.sampled_from([None, None, 20.0]),
    unique_key=st.sampled_from([None, None, "u1", "u2"]),
    keys=st.sampled_from([None, None, ("c1", 1), ("c1", 2), ("c2", 1)]),
    webhook_url=st.sampled_from([None, None, None, "https://example.com/"]),
    tags=st.sampled_from([None, ["a"]]),
)

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
