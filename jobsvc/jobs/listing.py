"""The list of jobs, a page at a time."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, or_, select
from sqlalchemy.orm import Session

from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.serialize import dump_job

MAX_BYTES = 8 * 1024 * 1024
"""A page ends with the job that brings its JSON to this many bytes."""

PORTION_BYTES = 4 * 1024 * 1024
"""Jobs are read in portions of about this many bytes, so that a page is not in memory before it is known to end."""

COMPRESSION = 100
"""What Postgres has compressed may be this many times as large. pglz reaches 90 with repeated text."""


@dataclass(frozen=True)
class Page:
    """Jobs, the newest first, the JSON of each, and the id to go on below; None on the last page."""

    jobs: Sequence[Job]
    texts: Sequence[str]
    next: UUID | None


def page(which: Filter, limit: int, below: UUID | None = None, dump: Callable[[Job], Any] = dump_job) -> Page:
    """Return up to `limit` of these jobs, whose ids are below that one, by falling id: the newest first.

    `dump` makes what is written of a job. Once that takes MAX_BYTES in all, the page ends, whatever the limit.
    An id begins with the time at which it was made and never changes, so that whoever goes on below
    `Page.next` sees each job once, however many are added meanwhile. One that is committed late,
    under an id from before, may be missed, but moves no other.
    """
    jobs: list[Job] = []
    texts: list[str] = []
    size = 0
    with transaction() as connection:
        found = connection.execute(keys(which, below).limit(limit + 1)).all()
        for ids in _portions(found[:limit]):
            for job in Session(connection).scalars(select(Job).where(Job.id.in_(ids)).order_by(Job.id.desc())):
                text = json.dumps(dump(job), separators=(",", ":"))  # ASCII, so a character is a byte
                jobs.append(job)
                texts.append(text)
                size += len(text)
                if size >= MAX_BYTES:
                    return Page(jobs, texts, job.id if job.id != found[-1].id else None)
    return Page(jobs, texts, found[limit - 1].id if len(found) > limit else None)


def keys(which: Filter, below: UUID | None) -> Select[Any]:
    """The ids of these jobs below that one, by falling id, and the bytes that each takes in Postgres."""
    size = func.pg_column_size(Job.payload) + func.coalesce(func.pg_column_size(Job.result), 0)
    # Neither reads what stands outside of the row, as octet_length(payload::text) would.
    compressed = or_(
        func.pg_column_compression(Job.payload).is_not(None), func.pg_column_compression(Job.result).is_not(None)
    )
    wanted = (
        select(Job.id, size.label("bytes"), compressed.label("is_compressed"))
        .where(*which.conditions())
        .order_by(Job.id.desc())
    )
    return wanted if below is None else wanted.where(Job.id < below)


def _portions(found: Sequence[Row[Any]]) -> Iterator[list[UUID]]:
    """The ids of these, in portions; a job larger than one is a portion of its own."""
    ids: list[UUID] = []
    room = PORTION_BYTES
    for row in found:
        size = row.bytes * (COMPRESSION if row.is_compressed else 1)
        if ids and size > room:
            yield ids
            ids, room = [], PORTION_BYTES
        room -= size
        ids.append(row.id)
    if ids:
        yield ids
