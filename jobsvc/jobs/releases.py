"""Releases or cancels BLOCKED jobs, by the transaction that ends what they depend on.

A transaction that changes the edges of a dependency has locked the row of that job: to end it, to retry it, to link
others to it, or to release more of its dependents. So what is read of its edges under the lock is exact. One that
changes the number of open dependencies of a BLOCKED job has locked the row of the BLOCKED job.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Connection,
    Integer,
    Text,
    Uuid,
    case,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from jobsvc.db.dependency_models import Dependency, PendingRelease
from jobsvc.db.models import Job
from jobsvc.db.sql import now, rows
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.edges import set_open
from jobsvc.jobs.webhooks import announce
from jobsvc.states import ENDED, Status

MAX_DEPENDENTS = 1000
"""Number of a job's dependents that one transaction releases. A relay releases the others, in later transactions."""

PORTION = 100
"""Number of ended jobs whose dependents are read by one statement, to limit memory."""

MAX_TOTAL = 100 * MAX_DEPENDENTS
"""Number of dependents, of all jobs that a transaction ends, from which on the rest is left to a relay."""

MAX_LEVELS = 10
"""Depth to which a transaction follows the dependents of dependents that it cancels; a relay follows them further."""

MAX_FOLLOWED = 1000
"""Number of dependents from which on a transaction goes no level deeper."""

CANCEL, RUN = "cancel", "run"
"""Values of `on_dependency_failure`."""

FAILURES = (Status.FAILED, Status.CANCELLED)


class Ended(NamedTuple):
    """A job that has ended. after: its dependents up to this id have been released; None if none has."""

    job_id: UUID
    status: Status
    after: UUID | None = None


def ended_with_dependents(changed: Iterable[Any]) -> list[Ended]:
    """Return those of the rows (id, status, has_dependents) that have ended and have dependents."""
    return [Ended(job.id, Status(job.status)) for job in changed if job.has_dependents and job.status in ENDED]


def follow_ends(connection: Connection, changed: Sequence[Any]) -> None:
    """Announce webhooks of jobs that have ended and release their dependents, in the transaction that ended them.

    changed: rows, also of jobs that have not ended, with id, status, webhook_url and has_dependents.
    """
    announce(connection, [job.id for job in changed if job.webhook_url])
    release(connection, ended_with_dependents(changed))


def release(connection: Connection, ended: Sequence[Ended]) -> None:
    """Release or cancel the dependents of these jobs, and those of the jobs that it cancels.

    To be called in the transaction that ended the jobs, and so has locked them, after the statement that did. Leaves
    what is beyond the limits above to `pending_releases.release_pending`.
    """
    handled, level = 0, 0
    while ended and level < MAX_LEVELS and (level == 0 or handled < MAX_FOLLOWED):
        cancelled: list[Ended] = []
        for at in range(0, len(ended), PORTION):
            if handled >= MAX_TOTAL:
                _postpone(connection, ended[at:])
                break
            number, some = _release_dependents(connection, ended[at : at + PORTION])
            handled += number
            cancelled += some
        ended = cancelled
        level += 1
    _postpone(connection, ended)


_ended = rows("ended", n=Integer, id=Uuid, after=Uuid)
_next_edges = (
    select(Dependency.dependent_id, Dependency.is_open)
    .where(Dependency.dependency_id == _ended.c.id)
    .where(Dependency.dependent_id > func.coalesce(_ended.c.after, literal(UUID(int=0), Uuid)))
    .order_by(Dependency.dependent_id)
    .limit(MAX_DEPENDENTS)
    .lateral("edge")
)
_read_edges = select(_ended.c.n, _next_edges.c.dependent_id, _next_edges.c.is_open).select_from(
    _ended.join(_next_edges, literal(True))
)


def _release_dependents(connection: Connection, ended: Sequence[Ended]) -> tuple[int, list[Ended]]:
    """Process up to MAX_DEPENDENTS of each job. Returns their number, and the cancelled jobs that have dependents."""
    records = [
        {"n": n, "id": str(one.job_id), "after": str(one.after) if one.after else None} for n, one in enumerate(ended)
    ]
    edges = connection.execute(_read_edges, {"rows": records}).all()
    read: dict[int, list[UUID]] = {}
    for edge in edges:
        read.setdefault(edge.n, []).append(edge.dependent_id)
    _postpone(connection, [ended[n]._replace(after=max(ids)) for n, ids in read.items() if len(ids) == MAX_DEPENDENTS])
    is_open = [(ended[edge.n], edge.dependent_id) for edge in edges if edge.is_open]
    if not is_open:
        return len(edges), []
    on_failure = _lock_blocked(connection, {dependent for _, dependent in is_open})
    failed: dict[UUID, Ended] = {}
    closed: Counter[UUID] = Counter()
    for dependency, dependent in is_open:
        if dependent in on_failure:
            closed[dependent] += 1
            if dependency.status in FAILURES and on_failure[dependent] == CANCEL:
                failed.setdefault(dependent, dependency)
    cancelled = cancel_dependents(connection, failed)
    _count_down(connection, {id_: number for id_, number in closed.items() if id_ not in failed})
    set_open(connection, [(dependency.job_id, dependent) for dependency, dependent in is_open], False)
    return len(edges), cancelled


def _lock_blocked(connection: Connection, job_ids: Iterable[UUID]) -> dict[UUID, str | None]:
    """Lock those of the jobs that are BLOCKED, in the order of their ids; returns `on_dependency_failure` of each."""
    blocked = select(Job.id, Job.on_dependency_failure).where(Job.id.in_(sorted(job_ids)), Job.status == Status.BLOCKED)
    locked = connection.execute(blocked.order_by(Job.id).with_for_update(key_share=True))
    return {job.id: job.on_dependency_failure for job in locked}


_failed = rows("failed", id=Uuid, message=Text)
_cancel = counting(
    update(Job)
    .where(Job.id == _failed.c.id, Job.status == Status.BLOCKED)
    .values(
        status=Status.CANCELLED,
        finished_at=now(),
        error=func.jsonb_build_object(
            "type", "DependencyFailed", "message", _failed.c.message, "attempt", Job.attempts
        ),
        version=Job.version + 1,
    )
    .returning(Job.id, Job.status, Job.type, Job.queue, Job.webhook_url, Job.has_dependents),
    lambda job: Count(Event.DROPPED, job.status),
)


def cancel_dependents(connection: Connection, failed: Mapping[UUID, Ended]) -> list[Ended]:
    """Cancel these BLOCKED jobs, each because of the dependency given for it; returns those that have dependents."""
    if not failed:
        return []
    records = [
        {"id": str(job_id), "message": f"the job {one.job_id}, on which this one depends, ended as {one.status}"}
        for job_id, one in failed.items()
    ]
    cancelled = connection.execute(_cancel, {"rows": records}).all()
    announce(connection, [job.id for job in cancelled if job.webhook_url])
    return ended_with_dependents(cancelled)


_closed = rows("closed", id=Uuid, number=Integer)
# Race: not the transaction's time, since a job that was accepted after its begin would be due later.
_moment = func.statement_timestamp()
_is_released = Job.open_dependencies <= _closed.c.number
_count = (
    update(Job)
    .where(Job.id == _closed.c.id, Job.status == Status.BLOCKED)
    .values(
        open_dependencies=Job.open_dependencies - _closed.c.number,
        status=case((~_is_released, Status.BLOCKED), (Job.due_at > _moment, Status.SCHEDULED), else_=Status.PENDING),
        # It has been due since its release, not since it was accepted.
        due_at=case((_is_released, func.greatest(Job.due_at, _moment)), else_=Job.due_at),
        version=Job.version + case((_is_released, 1), else_=0),
    )
)


def _count_down(connection: Connection, closed: Mapping[UUID, int]) -> None:
    """Reduce the open dependencies of BLOCKED jobs by these numbers; those with none left are released."""
    if closed:
        connection.execute(_count, {"rows": [{"id": str(id_), "number": n} for id_, n in closed.items()]})


def _postpone(connection: Connection, ended: Sequence[Ended]) -> None:
    """Leave further dependents of these jobs to `pending_releases.release_pending`."""
    if ended:
        postpone = insert(PendingRelease)
        after = postpone.excluded.after
        postpone = postpone.on_conflict_do_update(index_elements=[PendingRelease.job_id], set_={"after": after})
        connection.execute(postpone, [{"job_id": one.job_id, "after": one.after} for one in ended])


def reopen(connection: Connection, job_ids: Sequence[UUID]) -> None:
    """Have the BLOCKED dependents of these locked jobs, which run again, wait for them anew."""
    connection.execute(delete(PendingRelease).where(PendingRelease.job_id.in_(job_ids)))
    closed = (
        select(Dependency.dependency_id, Dependency.dependent_id)
        .join(Job, Job.id == Dependency.dependent_id)
        .where(Dependency.dependency_id.in_(job_ids), ~Dependency.is_open, Job.status == Status.BLOCKED)
        .order_by(Job.id)
        .with_for_update(of=Job, key_share=True)
    )
    edges = [(edge.dependency_id, edge.dependent_id) for edge in connection.execute(closed)]
    if edges:
        numbers = Counter(dependent for _, dependent in edges)
        records = [{"id": str(id_), "number": number} for id_, number in numbers.items()]
        more = update(Job).where(Job.id == _closed.c.id)
        connection.execute(more.values(open_dependencies=Job.open_dependencies + _closed.c.number), {"rows": records})
        set_open(connection, edges, True)
