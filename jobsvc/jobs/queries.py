"""Reads jobs and their attempts."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, SQLColumnExpression, Text, cast, func, literal, select, union_all
from sqlalchemy.orm import Session

from jobsvc.db.engine import transaction
from jobsvc.db.models import Attempt, AttemptLines, Job
from jobsvc.errors import JobNotFound, VersionMismatch
from jobsvc.jobs.log_lines import Lines

MAX_ATTEMPTS = 1000
"""Maximum number of attempts read of one job: the newest."""

MAX_BYTES = 8 * 1024 * 1024
"""No older attempt is read once the text of newer ones takes this many bytes."""

ATTEMPT_BYTES = 300
"""Size of an attempt in bytes, not counting its texts."""

Versions = frozenset[int] | None
"""The versions of a job that a caller accepts; None accepts any."""


def get(job_id: UUID) -> Job:
    """Return the job. Raises JobNotFound."""
    with transaction() as connection:
        return load(Session(connection), job_id)


def history(job_id: UUID) -> tuple[Job, list[Attempt]]:
    """Return the job, and its newest attempts that have rows (see Attempt), by start time.

    Raises JobNotFound.
    """
    return full_history(job_id)[:2]


def full_history(job_id: UUID) -> tuple[Job, list[Attempt], dict[int, list[Lines]]]:
    """Return the same as `history`, and the log lines stored while attempts ran, by fence.

    Of the newest MAX_ATTEMPTS attempts, fewer if their text reaches MAX_BYTES, at least one. Raises JobNotFound.
    """
    with transaction() as connection:
        session = Session(connection)
        job = load(session, job_id)
        oldest = session.scalar(_oldest_to_read(job_id)) or 0
        attempts = session.scalars(
            select(Attempt).where(Attempt.job_id == job_id, Attempt.fence >= oldest).order_by(Attempt.fence)
        ).all()
        stored = session.execute(
            select(AttemptLines.fence, AttemptLines.last_line, AttemptLines.lines)
            .where(AttemptLines.job_id == job_id, AttemptLines.fence >= oldest)
            .order_by(AttemptLines.fence, AttemptLines.last_line)
        )
        lines: dict[int, list[Lines]] = {}
        for fence, last, some in stored:
            lines.setdefault(fence, []).append(Lines(last, some))
        is_last_without_row = job.started_at is not None and all(one.fence != job.fence for one in attempts)
        return job, list(attempts[1:] if is_last_without_row and len(attempts) == MAX_ATTEMPTS else attempts), lines


def _bytes(text: SQLColumnExpression[Any]) -> ColumnElement[int]:
    """Return SQL for the approximate size of this text as JSON with non-ASCII characters escaped, in bytes."""
    beyond_ascii = func.octet_length(text) - func.char_length(text)
    return func.coalesce(func.octet_length(cast(func.to_json(text), Text)) + 2 * beyond_ascii, 0)


def _oldest_to_read(job_id: UUID) -> Any:
    """Select the fence of the oldest attempt to read. Postgres adds up sizes, so that no text is read in vain."""
    texts = (Attempt.error_message, Attempt.traceback, cast(Attempt.logs, Text))
    newest = (
        select(Attempt.fence, sum(map(_bytes, texts), start=literal(ATTEMPT_BYTES)).label("size"))
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.fence.desc())
        .limit(MAX_ATTEMPTS)
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


def load(session: Session, job_id: UUID) -> Job:
    """Return the job, within the caller's transaction. Raises JobNotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(f"no job has the id {job_id}")
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
