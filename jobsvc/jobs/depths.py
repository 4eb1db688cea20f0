"""How full the queues are: what hasn't ended, counted over the partial indexes that hold nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, literal, or_, select, union_all

from jobsvc.db import transaction
from jobsvc.models import Job
from jobsvc.sql import now, seconds_since
from jobsvc.states import WAITING, Status


@dataclass(frozen=True)
class Depth:
    """How many jobs of a queue have a status, and for how long (seconds) the longest due has been due; None without."""

    queue: str
    status: Status
    jobs: int
    oldest: float | None


_waits = Job.status.in_(WAITING)
_is_in_rq = Job.dispatched_at >= Job.due_at
_is_to_dispatch = or_(Job.dispatched_at.is_(None), Job.dispatched_at < Job.due_at)


def depths() -> Sequence[Depth]:
    """What hasn't ended, by queue and status; nothing where there is none."""
    oldest = seconds_since(func.min(Job.due_at).filter(Job.due_at <= now(), _waits)).label("oldest")
    parts = [
        select(Job.queue, Job.status, func.count().label("jobs"), oldest).where(*part).group_by(Job.queue, Job.status)
        for part in ([_waits, _is_in_rq], [_waits, _is_to_dispatch], [Job.status == Status.PROCESSING])
    ]
    each = union_all(*parts).subquery()
    total = select(each.c.queue, each.c.status, func.sum(each.c.jobs), func.max(each.c.oldest))
    with transaction() as connection:
        found = connection.execute(total.group_by(each.c.queue, each.c.status))
        return [
            Depth(queue, Status(status), int(jobs), None if oldest is None else float(oldest))
            for queue, status, jobs, oldest in found
        ]


def relay_lag() -> float:
    """For how long (seconds) the longest due job that was not handed to RQ has been due; 0 without one."""
    lag = select(func.coalesce(seconds_since(func.min(Job.due_at)), literal(0)))
    with transaction() as connection:
        return float(connection.scalar(lag.where(_waits, _is_to_dispatch, Job.due_at <= now())) or 0)
