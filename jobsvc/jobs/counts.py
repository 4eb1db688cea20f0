"""How full the queues are: what hasn't ended, counted over the partial indexes that hold nothing else."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Executable, Row, func, select, text, union_all

from jobsvc.db.engine import transaction
from jobsvc.db.models import IS_DISPATCHED, IS_RUNNING, IS_TO_DISPATCH, Job
from jobsvc.db.sql import now, seconds_since

CHEAP_SECONDS = 0.25
RATIO = 20
"""What took longer to count than CHEAP_SECONDS serves again for RATIO times as long as it took."""


def remembered(count: Callable[[], Executable]) -> Callable[[], Sequence[Row[Any]]]:
    """The rows of a query that counts, from memory while they are fresh; one caller at a time counts."""
    lock = threading.Lock()
    fresh_until = 0.0
    rows: Sequence[Row[Any]] = ()

    def look() -> Sequence[Row[Any]]:
        nonlocal fresh_until, rows
        with lock:
            if time.monotonic() >= fresh_until:
                with transaction() as connection:
                    begun = time.monotonic()
                    rows = connection.execute(count()).all()
                    took = time.monotonic() - begun
                fresh_until = time.monotonic() + (RATIO * took if took > CHEAP_SECONDS else 0)
            return rows

    return look


@remembered
def depths() -> Executable:
    """Rows of queue, status, jobs, and for how long (seconds) the longest due of them has been due, `waited`.

    A queue and status may come in several rows: each part is read from a partial index of its own.
    """
    parts = []
    for condition in (IS_RUNNING, IS_TO_DISPATCH, IS_DISPATCHED):
        is_due = Job.due_at <= now() if condition != IS_RUNNING else text("false")
        waited = seconds_since(func.min(Job.due_at).filter(is_due))
        part = select(Job.queue, Job.status, func.count().label("jobs"), waited.label("waited"))
        parts.append(part.where(text(condition)).group_by(Job.queue, Job.status))
    return union_all(*parts)


def relay_lag() -> float:
    """For how long (seconds) the longest due job that was not handed to RQ has been due; 0 without one."""
    lag = select(seconds_since(func.min(Job.due_at))).where(text(IS_TO_DISPATCH), Job.due_at <= now())
    with transaction() as connection:
        return float(connection.scalar(lag) or 0)
