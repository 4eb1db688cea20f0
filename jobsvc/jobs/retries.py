"""Retries ended jobs by hand. One whose dependencies have not ended becomes BLOCKED."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any, NamedTuple
from uuid import UUID

from psycopg2.errors import UniqueViolation
from sqlalchemy import Connection, Integer, Uuid, case, func, null, select, update
from sqlalchemy.exc import IntegrityError

from jobsvc.db.models import Job
from jobsvc.db.sql import now, rows, seconds_until
from jobsvc.errors import UniqueKeyTaken
from jobsvc.jobs.claims import Dispatch, as_dispatch
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.dependencies import first_failed, lock_jobs, open_dependencies
from jobsvc.jobs.edges import set_open
from jobsvc.jobs.releases import CANCEL, Ended, reopen
from jobsvc.states import Status


class Retried(NamedTuple):
    """A retried job; its dispatch is None if it is BLOCKED."""

    job_id: UUID
    dispatch: Dispatch | None


@dataclass
class Retries:
    """The retried jobs; and jobs that were not retried, each with a dependency that ended without success."""

    done: list[Retried] = field(default_factory=list)
    refused: dict[UUID, Ended] = field(default_factory=dict)


_again = {
    "max_attempts": Job.attempts + 1 + func.cardinality(Job.retry_intervals),
    "due_at": now(),
    "run_at": null(),
    "expires_at": null(),
    "expiry_met": null(),
    "finished_at": null(),
    "cancel_requested_at": null(),
    "version": Job.version + 1,
}


def retry_these(connection: Connection, job_ids: Sequence[UUID], among: Sequence[Status]) -> Retries:
    """Retry those of the jobs that have a status in `among`, within the caller's transaction.

    Raises UniqueKeyTaken; the caller's transaction must be rolled back then.
    """
    # Ordered by id: two transactions that lock the same jobs must not wait for each other (deadlock).
    plain = select(Job.id).where(Job.id.in_(job_ids), Job.status.in_(among), Job.depends_on.is_(None))
    locked = plain.where(Job.has_dependents.is_(None)).order_by(Job.id).with_for_update().cte("locked")
    restart = (
        update(Job)
        .where(Job.id == locked.c.id)
        # The caller dispatches it, like a new job.
        .values(**_again, status=Status.PENDING, dispatched_at=now())
        .returning(Job, seconds_until(Job.due_at).label("wait"))
    )
    with _unique_keys():
        retried = connection.execute(counting(restart, lambda job: Count(Event.REVIVED))).all()
    retries = Retries([Retried(job.id, as_dispatch(job)) for job in retried])
    if left := set(job_ids) - {job.id for job in retried}:
        _retry_linked(connection, left, among, retries)
    return retries


_linked = rows("linked", id=Uuid, open=Integer)
_is_blocked = _linked.c.open > 0
_restart_linked = counting(
    update(Job)
    .where(Job.id == _linked.c.id)
    .values(
        **_again,
        status=case((_is_blocked, Status.BLOCKED), else_=Status.PENDING),
        dispatched_at=case((_is_blocked, null()), else_=now()),
        open_dependencies=case((Job.depends_on.is_not(None), _linked.c.open)),
    )
    .returning(Job, seconds_until(Job.due_at).label("wait")),
    lambda job: Count(Event.REVIVED),
)


def _retry_linked(connection: Connection, job_ids: Iterable[UUID], among: Sequence[Status], retries: Retries) -> None:
    """Retry those of the jobs that depend on others, or on which others depend; adds them to `retries`."""
    wanted = select(Job.id, Job.depends_on, Job.on_dependency_failure).where(Job.id.in_(list(job_ids)))
    found: dict[UUID, Any] = {job.id: job for job in connection.execute(wanted.where(Job.status.in_(among)))}
    depends_on = {id_: job.depends_on or [] for id_, job in found.items()}
    status = lock_jobs(connection, {*found, *(one for some in depends_on.values() for one in some)})
    is_open: dict[UUID, list[UUID]] = {}
    # Dependencies first, since those that are retried here block.
    inner = {id_: [one for one in some if one in found] for id_, some in depends_on.items()}
    for id_ in TopologicalSorter(inner).static_order():
        if status.get(id_) not in among:
            continue
        existing = [one for one in depends_on[id_] if one in status]
        if found[id_].on_dependency_failure == CANCEL and (cause := first_failed(existing, status)):
            retries.refused[id_] = cause
            continue
        is_open[id_] = open_dependencies(existing, status)
        status[id_] = Status.BLOCKED if is_open[id_] else Status.PENDING
    if not is_open:
        return
    records = [{"id": str(id_), "open": len(some)} for id_, some in is_open.items()]
    with _unique_keys():
        retried = connection.execute(_restart_linked, {"rows": records}).all()
    retries.done += [Retried(job.id, None if is_open[job.id] else as_dispatch(job)) for job in retried]
    for value in (True, False):
        edges = [(one, id_) for id_, some in is_open.items() for one in depends_on[id_] if (one in some) == value]
        set_open(connection, edges, value)
    reopen(connection, list(is_open))


@contextmanager
def _unique_keys() -> Iterator[None]:
    """Raise UniqueKeyTaken if the block violates the unique keys of unfinished jobs."""
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation) and error.orig.diag.constraint_name == "jobs_unique_key":
            raise UniqueKeyTaken("another unfinished job has its uniqueKey now") from error
        raise
