"""Gauges: queue depths, and the lag of the relay. All queries use indexes."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Executable, Row, func, select, text, union_all

from jobsvc.db.conditions import AWAITS_HANDLER_AT, IS_BLOCKED, IS_DISPATCHED, IS_RUNNING, IS_TO_DISPATCH
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, seconds_since
from jobsvc.reuse import Result, reused

SLOW_SECONDS = 0.25
CACHED_RATIO = 20
"""The result of a count slower than SLOW_SECONDS is used again for CACHED_RATIO times the duration of the count."""


def cached_if_slow(count: Callable[[], Executable]) -> Callable[[], Sequence[Row[Any]]]:
    """Cache the rows of a count query if it is slow. One thread at a time runs the query."""

    def read() -> Sequence[Row[Any]]:
        with transaction() as connection:
            return connection.execute(count()).all()

    return reused_if_slow(read)


def reused_if_slow(read: Callable[[], Result], slow_seconds: float | None = None) -> Callable[[], Result]:
    """Use the result of a slow function again (see SLOW_SECONDS). slow_seconds: instead of SLOW_SECONDS."""

    def seconds(took: float) -> float:
        is_slow = took > (SLOW_SECONDS if slow_seconds is None else slow_seconds)
        return CACHED_RATIO * took if is_slow else 0.0

    return reused(read, seconds)


@cached_if_slow
def depths() -> Executable:
    """Return rows of queue, status, numbers of jobs, and `waited`: seconds since the longest due of them was due.

    The numbers: `jobs`; among them `withheld`, and `no_handler`, those that a worker refused for want of a handler.
    A queue and status may have several rows: each part is read from its own partial index.
    """
    at = {"withheld": "infinity", "no_handler": AWAITS_HANDLER_AT}
    parts = []
    for condition in (IS_RUNNING, IS_BLOCKED, IS_TO_DISPATCH, IS_DISPATCHED):
        is_due = Job.due_at <= now() if condition in (IS_TO_DISPATCH, IS_DISPATCHED) else text("false")
        waited = seconds_since(func.min(Job.due_at).filter(is_due))
        # Dispatched jobs alone: the column of others may have an older value.
        numbers = [
            func.count()
            .filter(text(f"dispatched_at = '{moment}'" if condition == IS_DISPATCHED else "false"))
            .label(name)
            for name, moment in at.items()
        ]
        part = select(Job.queue, Job.status, func.count().label("jobs"), waited.label("waited"), *numbers)
        parts.append(part.where(text(condition)).group_by(Job.queue, Job.status))
    return union_all(*parts)


def relay_lag() -> float:
    """Return the seconds for which the longest due, undispatched job has been due; 0 if there is none."""
    lag = select(seconds_since(func.min(Job.due_at))).where(text(IS_TO_DISPATCH), Job.due_at <= now())
    with transaction() as connection:
        return float(connection.scalar(lag) or 0)
