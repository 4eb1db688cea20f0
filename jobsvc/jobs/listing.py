"""The list of jobs, a page at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from jobsvc.db import transaction
from jobsvc.jobs.filters import Filter
from jobsvc.models import Job

MAX_BYTES = 8 * 1024 * 1024
"""A page ends early once its payloads and results take this much, as Postgres stores them."""


@dataclass(frozen=True)
class Page:
    """Jobs, the newest first, and the id to go on below; None on the last page."""

    jobs: Sequence[Job]
    next: UUID | None


def page(which: Filter, limit: int, below: UUID | None = None) -> Page:
    """Up to `limit` of these jobs, whose ids are below that one, by falling id: the newest first.

    An id begins with the time at which it was made and never changes, so that whoever goes on below
    `Page.next` sees each job once, however many are added meanwhile. One that is committed late,
    under an id from before, may be missed, but moves no other.
    """
    with transaction() as connection:
        found = connection.execute(keys(which, below).limit(limit + 1)).all()
        ids = _that_fit(found[:limit])
        jobs = Session(connection).scalars(select(Job).where(Job.id.in_(ids)).order_by(Job.id.desc())).all()
    return Page(jobs, ids[-1] if len(found) > len(ids) else None)


def keys(which: Filter, below: UUID | None) -> Select[Any]:
    """The ids of these jobs below that one, by falling id, and the bytes that each takes."""
    size = func.pg_column_size(Job.payload) + func.coalesce(func.pg_column_size(Job.result), 0)
    wanted = select(Job.id, size.label("bytes")).where(*which.conditions()).order_by(Job.id.desc())
    return wanted if below is None else wanted.where(Job.id < below)


def _that_fit(found: Sequence[Row[Any]]) -> list[UUID]:
    """The first of these, until they take too much; always one."""
    ids: list[UUID] = []
    room = MAX_BYTES
    for row in found:
        if ids and row.bytes > room:
            break
        room -= row.bytes
        ids.append(row.id)
    return ids
