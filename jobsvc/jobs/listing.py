"""The list of jobs, page by page."""

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
"""A page ends with the job whose JSON takes it to this size (bytes)."""

PORTION_BYTES = 4 * 1024 * 1024
"""Approximate size (bytes) of the portions in which jobs are read, to limit memory."""

COMPRESSION = 100
"""Assumed compression ratio of values that Postgres has compressed. pglz reaches 90 with repeated text."""


@dataclass(frozen=True)
class Page:
    """Jobs, newest first, the JSON of each, and the id below which the next page starts; None on the last page."""

    jobs: Sequence[Job]
    texts: Sequence[str]
    next: UUID | None


def page(which: Filter, limit: int, below: UUID | None = None, dump: Callable[[Job], Any] = dump_job) -> Page:
    """Return up to `limit` matching jobs with ids less than `below`, by descending id: newest first.

    `dump` makes a job's JSON value. The page ends early once its JSON takes MAX_BYTES.
    Ids start with their time and never change, so that paging by `Page.next` shows each job once, however
    many are added meanwhile. A job committed late, with an older id, may be missed but shifts no other.
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
    """Select the ids of matching jobs less than `below`, descending, and the size of each in Postgres (bytes)."""
    size = func.pg_column_size(Job.payload) + func.coalesce(func.pg_column_size(Job.result), 0)
    # Neither function reads TOASTed values, as octet_length(payload::text) would.
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
    """Yield the ids in portions of about PORTION_BYTES; a larger job is a portion of its own."""
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
