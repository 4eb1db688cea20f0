"""Links new jobs to the jobs that they depend on, within the transaction that stores them.

The INSERT makes a job with dependencies BLOCKED. `link_all` locks the dependencies, so that none of them ends,
is retried or deleted unnoticed, and then decides whether the job stays BLOCKED.
"""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Integer, Text, Uuid, bindparam, case, func, select, text, update

from jobsvc.db.models import Job
from jobsvc.db.sql import now, rows
from jobsvc.errors import UnknownDependencies
from jobsvc.jobs.edges import insert_edges
from jobsvc.jobs.releases import CANCEL, FAILURES, Ended, cancel_dependents
from jobsvc.states import ENDED, Status

MAX_DEPENDENCIES = 1000
"""Largest number of dependencies of a job."""

Dependency = UUID | int
"""What a new job depends on: the id of a job, or the position of another one that is stored with it."""


class NewLink(NamedTuple):
    """A job just inserted as BLOCKED, what it depends on, and its position among the jobs stored with it."""

    job_id: UUID
    depends_on: list[UUID]
    on_failure: str
    position: int


def in_order_of_dependencies(depends_on: Sequence[Sequence[Dependency] | None]) -> Sequence[int]:
    """Return the positions of jobs so that each comes after those it depends on.

    Ids are given in this order, so that the order of ids is one in which rows can be locked (see decision 0030).
    Raises graphlib.CycleError.
    """
    inner = {n: [one for one in given or () if isinstance(one, int)] for n, given in enumerate(depends_on)}
    if all(one < n for n, positions in inner.items() for one in positions):
        return range(len(depends_on))
    return list(TopologicalSorter(inner).static_order())


def link_all(connection: Connection, new: Sequence[Any], submitted: Sequence[Any]) -> set[UUID]:
    """Link these new jobs (NewJob), stored as `submitted`, to their dependencies; returns those that can't start.

    Raises UnknownDependencies.
    """
    links = [
        NewLink(
            one.job_id,
            [submitted[id_].job_id if isinstance(id_, int) else id_ for id_ in job.depends_on],
            job.on_dependency_failure or CANCEL,
            position,
        )
        for position, (job, one) in enumerate(zip(new, submitted, strict=True))
        if job.depends_on and one.is_new
    ]
    return _link(connection, links, [one.job_id for one in submitted if one.is_new]) if links else set()


def _link(connection: Connection, links: Sequence[NewLink], created: Iterable[UUID]) -> set[UUID]:
    """Store what these new jobs depend on, and decide on each: it stays BLOCKED, is cancelled, or may start.

    created: the ids of all jobs that this transaction has stored. Returns the ids of the jobs that can't start.
    """
    created = set(created)
    needed = {one for new in links for one in new.depends_on}
    status = lock_jobs(connection, needed - created)
    if unknown := needed - created - status.keys():
        places = [(new.position, n) for new in links for n, one in enumerate(new.depends_on) if one in unknown]
        raise UnknownDependencies(places)
    failed: dict[UUID, Ended] = {}
    is_open: dict[UUID, list[UUID]] = {}
    for new in sorted(links):  # by id: dependencies come first
        is_open[new.job_id] = open_dependencies(new.depends_on, status)
        if new.on_failure == CANCEL and (cause := first_failed(new.depends_on, status)):
            failed[new.job_id] = cause
            status[new.job_id] = Status.CANCELLED
        elif is_open[new.job_id]:
            status[new.job_id] = Status.BLOCKED
    connection.execute(_mark, {"ids": [str(one) for one in needed]})
    _insert_edges(connection, links, is_open)
    _store(connection, links, is_open, failed)
    cancel_dependents(connection, failed)
    return {new.job_id for new in links if is_open[new.job_id] or new.job_id in failed}


def lock_jobs(connection: Connection, job_ids: Iterable[UUID]) -> dict[UUID, Status]:
    """Lock these jobs in the order of their ids; returns the status of each, leaving out ids without a job."""
    if not (ids := sorted(job_ids)):
        return {}
    wanted = select(Job.id, Job.status).where(Job.id.in_(ids)).order_by(Job.id)
    return {job.id: Status(job.status) for job in connection.execute(wanted.with_for_update(key_share=True))}


def open_dependencies(depends_on: Iterable[UUID], status: Mapping[UUID, Status]) -> list[UUID]:
    """Return those that have not ended, each once. A job without a status was just created, and is open."""
    return [one for one in dict.fromkeys(depends_on) if status.get(one, Status.PENDING) not in ENDED]


def first_failed(depends_on: Iterable[UUID], status: Mapping[UUID, Status]) -> Ended | None:
    """Return the first of the jobs that FAILED or was CANCELLED, or None."""
    return next((Ended(one, status[one]) for one in depends_on if status.get(one) in FAILURES), None)


# All, also those that have ended: one that is retried by hand blocks again.
_mark = text(
    "UPDATE jobs SET has_dependents = true WHERE id = ANY(CAST(:ids AS uuid[])) AND has_dependents IS NULL"
).bindparams(bindparam("ids", type_=ARRAY(Text)))


def _insert_edges(connection: Connection, links: Iterable[NewLink], is_open: Mapping[UUID, Sequence[UUID]]) -> None:
    edges = [
        (one, new.job_id, one in still_open)
        for new in links
        for still_open in [set(is_open[new.job_id])]
        for one in dict.fromkeys(new.depends_on)
    ]
    insert_edges(connection, edges)


_linked = rows("linked", id=Uuid, depends_on=ARRAY(Uuid), open=Integer, status=Text)
_set = (
    update(Job)
    .where(Job.id == _linked.c.id)
    .values(
        depends_on=_linked.c.depends_on,
        open_dependencies=_linked.c.open,
        status=func.coalesce(_linked.c.status, case((Job.due_at > now(), Status.SCHEDULED), else_=Status.PENDING)),
    )
)


def _store(
    connection: Connection,
    links: Iterable[NewLink],
    is_open: Mapping[UUID, Sequence[UUID]],
    failed: Mapping[UUID, Ended],
) -> None:
    records = [
        {
            "id": str(new.job_id),
            "depends_on": [str(one) for one in dict.fromkeys(new.depends_on)],
            "open": len(is_open[new.job_id]),
            "status": Status.BLOCKED if is_open[new.job_id] or new.job_id in failed else None,
        }
        for new in links
    ]
    connection.execute(_set, {"rows": records})
