"""Statistics: queue depths, and numbers of each job type. All queries use indexes."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Double, Executable, Row, Select, cast, func, select, text, union, union_all

from jobsvc.db.conditions import IS_DISPATCHED, IS_RUNNING, IS_TO_DISPATCH
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, seconds, seconds_since
from jobsvc.states import WAITING, Status

SLOW_SECONDS = 0.25
CACHED_RATIO = 20
"""The result of a count slower than SLOW_SECONDS is used again for CACHED_RATIO times the duration of the count."""

SAMPLE = 10_000
"""Number of jobs that `type_stats` reads in each of its samples."""


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


@dataclass(frozen=True)
class TypeStats:
    """Numbers of a type's jobs that started, completed and failed; mean and longest run (s) of completed ones."""

    type: str
    started: int
    completed: int
    failed: int
    mean: float | None
    longest: float | None


def type_stats(queues: Sequence[str], within: float) -> list[TypeStats]:
    """Return statistics of the job types that were active in the last `within` seconds, the slowest first.

    Samples only the newest SAMPLE jobs, and, since queues are served in order, the SAMPLE jobs before
    the next one of each of these queues. If more jobs were active, the counts are too low.
    """
    job = union(*(select(_sample(queue).subquery()) for queue in (None, *queues))).subquery().c
    since = now() - seconds(within)
    has_ended = job.finished_at >= since
    is_completed = has_ended & (job.status == Status.COMPLETED)
    ran = cast(func.extract("epoch", job.finished_at - job.started_at), Double)
    mean = func.avg(ran).filter(is_completed).label("mean")
    numbers = (
        select(
            job.type,
            func.count().filter(job.started_at >= since).label("started"),
            func.count().filter(is_completed).label("completed"),
            func.count().filter(has_ended, job.status == Status.FAILED).label("failed"),
            mean,
            func.max(ran).filter(is_completed).label("longest"),
        )
        .where(has_ended | (job.started_at >= since))
        .group_by(job.type)
        .order_by(mean.desc().nulls_last(), job.type)
    )
    with transaction() as connection:
        return [TypeStats(**row) for row in connection.execute(numbers).mappings()]


def _sample(queue: str | None) -> Select[Any]:
    """Select the newest SAMPLE jobs, or those before the next job of this queue."""
    columns: list[Any] = [Job.id, Job.type, Job.status, Job.started_at, Job.finished_at]
    sample = select(*columns).order_by(Job.id.desc()).limit(SAMPLE)
    if queue is None:
        return sample
    waits = select(Job.id).where(Job.queue == queue, Job.status.in_(WAITING), Job.dispatched_at >= Job.due_at)
    return sample.where(Job.id < waits.order_by(Job.dispatched_at).limit(1).scalar_subquery())
