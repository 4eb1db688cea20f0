"""Gauges: queue depths, and the lag of the relay. All queries use indexes."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Executable, Row, func, select, text, union_all

from jobsvc.db.conditions import IS_DISPATCHED, IS_RUNNING, IS_TO_DISPATCH
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, seconds_since

SLOW_SECONDS = 0.25
CACHED_RATIO = 20
"""The result of a count slower than SLOW_SECONDS is used again for CACHED_RATIO times the duration of the count."""


def cached_if_slow(count: Callable[[], Executable]) -> Callable[[], Sequence[Row[Any]]]:
    """Cache the rows of a slow count query (see SLOW_SECONDS). One thread at a time runs the query."""
    lock = threading.Lock()
    cached_until = 0.0
    rows: Sequence[Row[Any]] = ()

    def read() -> Sequence[Row[Any]]:
        nonlocal cached_until, rows
        with lock:
            if time.monotonic() >= cached_until:
                with transaction() as connection:
                    started_at = time.monotonic()
                    rows = connection.execute(count()).all()
                    took = time.monotonic() - started_at
                cached_until = time.monotonic() + (CACHED_RATIO * took if took > SLOW_SECONDS else 0)
            return rows

    return read


@cached_if_slow
def depths() -> Executable:
    """Return rows of queue, status, jobs and `waited`: seconds since the longest due of them was due.

    A queue and status may have several rows: each part is read from its own partial index.
    """
    parts = []
    for condition in (IS_RUNNING, IS_TO_DISPATCH, IS_DISPATCHED):
        is_due = Job.due_at <= now() if condition != IS_RUNNING else text("false")
        waited = seconds_since(func.min(Job.due_at).filter(is_due))
        part = select(Job.queue, Job.status, func.count().label("jobs"), waited.label("waited"))
        parts.append(part.where(text(condition)).group_by(Job.queue, Job.status))
    return union_all(*parts)


def relay_lag() -> float:
    """Return the seconds for which the longest due, undispatched job has been due; 0 if there is none."""
    lag = select(seconds_since(func.min(Job.due_at))).where(text(IS_TO_DISPATCH), Job.due_at <= now())
    with transaction() as connection:
        return float(connection.scalar(lag) or 0)
