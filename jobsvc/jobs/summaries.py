"""Jobs without their payloads and results, for lists: the latest ones, a page of those that match, and a search."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, union_all

from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.handlers import DELIVERY
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.payload_search import find_newest
from jobsvc.jobs.queries import ids_ending, newest_first
from jobsvc.states import Status

MAX_FOUND = 20
"""Maximum number of jobs found by the end of their ids."""

_ID_END = re.compile("[0-9a-f-]{4,36}")


@dataclass(frozen=True)
class JobSummary:
    """A job without its payload and result, which may be large."""

    id: UUID
    type: str
    status: str
    queue: str
    tags: list[str] | None
    attempts: int
    max_attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime
    unique_key: str | None
    concurrency_key: str | None
    open_dependencies: int | None
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    version: int


def _summaries() -> Select[Any]:
    return select(*(getattr(Job, field.name) for field in fields(JobSummary)))


def latest(limit: int, followed: Collection[UUID] = ()) -> list[JobSummary]:
    """Return the newest `limit` jobs, the newest `limit` running ones and those `followed`, by descending id."""
    newest = select(Job.id).where(Job.type != DELIVERY).order_by(Job.id.desc()).limit(limit)
    wanted = union_all(
        select(newest.subquery().c.id),
        select(newest.where(Job.status == Status.PROCESSING).subquery().c.id),
        select(Job.id).where(Job.id.in_(followed)),
    )
    with transaction() as connection:
        found = connection.execute(_summaries().where(Job.id.in_(wanted)).order_by(Job.id.desc())).mappings()
        return [JobSummary(**row) for row in found]


@dataclass(frozen=True)
class SummaryPage:
    """Jobs, newest first, and the id below which the next page starts; None on the last page."""

    jobs: Sequence[JobSummary]
    next: UUID | None


def page_of_summaries(wanted: Filter, limit: int, cursor: UUID | None = None) -> SummaryPage:
    """Return up to `limit` matching jobs with ids less than the cursor, in the order of `jobs.page`."""
    # The ids first: an index that has the columns of the filter decides without reading rows that do not match.
    ids: Any = newest_first(select(Job.id), wanted, cursor).limit(limit + 1)
    following = None
    with transaction() as connection:
        if wanted.payload is not None:
            portion = find_newest(connection, wanted, limit, cursor)
            ids, following = portion.ids, portion.next
        found = connection.execute(_summaries().where(Job.id.in_(ids)).order_by(Job.id.desc())).mappings()
        jobs = [JobSummary(**row) for row in found]
    return SummaryPage(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else following)


def find(text: str) -> Sequence[UUID]:
    """Return the ids of jobs with this id, or with an id that ends in these 4 or more characters, newest first.

    Searches MOST_SEARCHED jobs for the end of an id, and returns at most MAX_FOUND; none if it can't be part of an id.
    """
    wanted = text.strip().lower()
    if not _ID_END.fullmatch(wanted):
        return []
    try:
        whole = UUID(wanted)
    except ValueError:
        return ids_ending(wanted, MAX_FOUND)
    with transaction() as connection:
        return connection.scalars(select(Job.id).where(Job.id == whole)).all()
