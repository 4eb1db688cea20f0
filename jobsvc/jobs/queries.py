"""Reads jobs and their attempts: one by one, and page by page."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    SQLColumnExpression,
    Text,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)

from jobsvc.db.engine import statement, transaction
from jobsvc.db.models import Attempt, AttemptLines, Job
from jobsvc.errors import JobNotFound, VersionMismatch
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.log_lines import Lines
from jobsvc.jobs.payload_search import COMPRESSION, find_newest
from jobsvc.jobs.serialize import dump_job

MAX_ATTEMPTS = 1000
"""Maximum number of attempts read of one job: the newest."""

MAX_BYTES = 8 * 1024 * 1024
"""A page of jobs ends with the one whose JSON takes it to this size; attempts likewise, from the newest on."""

ATTEMPT_BYTES = 300
"""Size of an attempt in bytes, not counting its texts."""

PORTION_BYTES = 4 * 1024 * 1024
"""Approximate size (bytes) of the portions in which jobs are read, to limit memory."""

MOST_SEARCHED = 100_000
"""Number of newest jobs among which `ids_ending` searches: less than 0.1 s."""

Versions = frozenset[int] | None
"""The versions of a job that a caller accepts; None accepts any."""


def get(job_id: UUID) -> Job:
    """Return the job. Raises JobNotFound."""
    with statement() as connection:
        return load(connection, job_id)


def ids_ending(end: str, at_most: int) -> Sequence[UUID]:
    """Return the ids that end with these characters, in lower case with hyphens, newest first.

    Searches the newest MOST_SEARCHED jobs.
    """
    newest = select(Job.id).order_by(Job.id.desc()).limit(MOST_SEARCHED).subquery()
    has_end = func.right(cast(newest.c.id, Text), len(end)) == end
    with transaction() as connection:
        return connection.scalars(select(newest.c.id).where(has_end).order_by(newest.c.id.desc()).limit(at_most)).all()


def find_by_id_end(end: str) -> UUID:
    """Return the id that ends with these characters, in lower case. Raises JobNotFound, also if several end so."""
    match ids_ending(end, 2):
        case [one]:
            return one
        case []:
            raise JobNotFound(f"none of the newest {MOST_SEARCHED:,} jobs has an id that ends in {end}")
        case several:
            raise JobNotFound(f"several jobs have ids that end in {end}, such as {' and '.join(map(str, several))}")


def history(job_id: UUID, most: int = MAX_ATTEMPTS) -> tuple[Job, list[Attempt], dict[int, list[Lines]]]:
    """Return the job, its newest attempts by start time, and the lines stored while attempts ran, by fence.

    Only attempts that have rows (see Attempt). At most `most`, fewer if their text reaches MAX_BYTES, at
    least one. Raises JobNotFound.
    """
    with transaction() as connection:
        job = load(connection, job_id)
        oldest = connection.scalar(_oldest_to_read(job_id, most)) or 0
        attempts: Sequence[Any] = connection.execute(
            select(Attempt).where(Attempt.job_id == job_id, Attempt.fence >= oldest).order_by(Attempt.fence)
        ).all()
        stored = connection.execute(
            select(AttemptLines.fence, AttemptLines.last_line, AttemptLines.lines)
            .where(AttemptLines.job_id == job_id, AttemptLines.fence >= oldest)
            .order_by(AttemptLines.fence, AttemptLines.last_line)
        )
        lines: dict[int, list[Lines]] = {}
        for fence, last, some in stored:
            lines.setdefault(fence, []).append(Lines(last, some))
        is_last_without_row = job.started_at is not None and all(one.fence != job.fence for one in attempts)
        return job, list(attempts[1:] if is_last_without_row and len(attempts) == most else attempts), lines


def _bytes(text: SQLColumnExpression[Any]) -> ColumnElement[int]:
    """Return SQL for the approximate size of this text as JSON with non-ASCII characters escaped, in bytes."""
    beyond_ascii = func.octet_length(text) - func.char_length(text)
    return func.coalesce(func.octet_length(cast(func.to_json(text), Text)) + 2 * beyond_ascii, 0)


def _oldest_to_read(job_id: UUID, most: int) -> Any:
    """Select the fence of the oldest attempt to read. Postgres adds up sizes, so that no text is read in vain."""
    texts = (Attempt.error_message, Attempt.traceback, cast(Attempt.logs, Text))
    newest = (
        select(Attempt.fence, sum(map(_bytes, texts), start=literal(ATTEMPT_BYTES)).label("size"))
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.fence.desc())
        .limit(most)
        .cte("newest")
    )
    oldest = select(func.coalesce(func.min(newest.c.fence), 0)).scalar_subquery()
    appended = select(AttemptLines.fence, _bytes(cast(AttemptLines.lines, Text)).label("size")).where(
        AttemptLines.job_id == job_id, AttemptLines.fence >= oldest
    )
    each = union_all(select(newest), appended).subquery()
    sizes = select(each.c.fence, func.sum(each.c.size).label("size")).group_by(each.c.fence).subquery()
    newer = (func.sum(sizes.c.size).over(order_by=sizes.c.fence.desc()) - sizes.c.size).label("newer")
    summed = select(sizes.c.fence, newer).subquery()
    return select(func.min(summed.c.fence)).where(summed.c.newer < MAX_BYTES)


_job = select(Job).where(Job.id == bindparam("id"))


def load(connection: Connection, job_id: UUID) -> Job:
    """Return the job, within the caller's transaction. Raises JobNotFound.

    It is a row with a Job's columns: a session and an object would take twice the time.
    """
    found: Any = connection.execute(_job, {"id": job_id}).one_or_none()
    if found is None:
        raise JobNotFound(f"no job has the id {job_id}")
    job: Job = found
    return job


def require_version(connection: Connection, job_id: UUID, versions: Versions) -> None:
    """Lock the job's row in the caller's transaction, unless its version is not among `versions`.

    Does nothing if `versions` is None. Raises JobNotFound and VersionMismatch.
    """
    if versions is None:
        return
    version = connection.scalar(select(Job.version).where(Job.id == job_id).with_for_update())
    if version is None:
        raise JobNotFound(f"no job has the id {job_id}")
    check_version(version, versions)


def check_version(version: int, versions: Versions) -> None:
    """Raise VersionMismatch if `version` is not among `versions`."""
    if versions is not None and version not in versions:
        raise VersionMismatch(f"the job has version {version} now, which is not what the request expects")


@dataclass(frozen=True)
class Page:
    """Jobs, newest first, the JSON of each, and the id below which the next page starts; None on the last page."""

    jobs: Sequence[Job]
    texts: Sequence[str]
    next: UUID | None


def page(which: Filter, limit: int, below: UUID | None = None, dump: Callable[[Job], Any] = dump_job) -> Page:
    """Return up to `limit` matching jobs with ids less than `below`, by descending id: newest first.

    `dump` makes a job's JSON value. The page ends early once its JSON takes MAX_BYTES, or once a portion of the jobs
    has been searched for a payload: then it may be empty without being the last one.
    Ids start with their time and never change, so that paging by `Page.next` shows each job once, however
    many are added between two pages. A job committed late, with an older id, may be missed but shifts no other.
    """
    jobs: list[Job] = []
    texts: list[str] = []
    size = 0
    with transaction() as connection:
        found, following = _sizes(connection, which, limit, below)
        for ids in _portions(found):
            portion: Any = connection.execute(select(Job).where(Job.id.in_(ids)).order_by(Job.id.desc()))
            for job in portion:
                text = json.dumps(dump(job), separators=(",", ":"))  # ASCII, so a character is a byte
                jobs.append(job)
                texts.append(text)
                size += len(text)
                if size >= MAX_BYTES:
                    return Page(jobs, texts, job.id if job.id != found[-1].id else following)
    return Page(jobs, texts, following)


def _sizes(
    connection: Connection, which: Filter, limit: int, below: UUID | None
) -> tuple[Sequence[Row[Any]], UUID | None]:
    """Return the id and size of each job of a page, and the id below which the next page starts."""
    if which.payload is None:
        found = connection.execute(keys(which, below).limit(limit + 1)).all()
        return found[:limit], found[limit - 1].id if len(found) > limit else None
    portion = find_newest(connection, which, limit, below)
    return connection.execute(_keys.where(Job.id.in_(portion.ids)).order_by(Job.id.desc())).all(), portion.next


def keys(which: Filter, below: UUID | None) -> Select[Any]:
    """Select the ids of matching jobs less than `below`, descending, and the size of each in Postgres (bytes)."""
    return newest_first(_keys, which, below)


def _select_keys() -> Select[Any]:
    size = func.pg_column_size(Job.payload) + func.coalesce(func.pg_column_size(Job.result), 0)
    # Neither function reads TOASTed values, as octet_length(payload::text) would.
    compressed = or_(
        func.pg_column_compression(Job.payload).is_not(None), func.pg_column_compression(Job.result).is_not(None)
    )
    return select(Job.id, size.label("bytes"), compressed.label("is_compressed"))


_keys = _select_keys()


def newest_first(wanted: Select[Any], which: Filter, below: UUID | None) -> Select[Any]:
    """Restrict a SELECT to matching jobs with ids less than `below`, by descending id."""
    matching = wanted.where(*which.conditions()).order_by(Job.id.desc())
    return matching if below is None else matching.where(Job.id < below)


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
