"""Reports of running attempts: their newest progress, and lines appended to their logs."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Uuid, delete, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from jobsvc.db.engine import statement
from jobsvc.db.models import AttemptLines, Job
from jobsvc.db.sql import rows
from jobsvc.jobs.log_lines import Lines
from jobsvc.jobs.start import StartedAttempt
from jobsvc.states import Status


class Chunk(NamedTuple):
    """Lines to append to the log of a running attempt.

    superfluous: the number of the last stored line that is no longer kept once these are stored.
    """

    started: StartedAttempt
    lines: Lines
    superfluous: int = 0


Attempts = set[tuple[UUID, int]]
"""Attempts, by job id and fence."""


def _holding(reported: Any, *columns: str) -> Any:
    # SKIP LOCKED: the holder of a row may wait for one that is locked here (deadlock). Callers report again.
    return (
        select(Job.id, Job.fence, *(reported.c[name] for name in columns))
        .join(reported, (Job.id == reported.c.id) & (Job.fence == reported.c.fence))
        .where(Job.status == Status.PROCESSING)
        .with_for_update(of=Job, key_share=True, skip_locked=True)
        .cte("holding")
    )


_of_progress = _holding(rows("reported", id=Uuid, fence=BigInteger, progress=JSONB), "progress")
_store_progress = (
    update(Job)
    .where(Job.id == _of_progress.c.id)
    .values(progress=_of_progress.c.progress, version=Job.version + 1)
    .returning(_of_progress.c.id, _of_progress.c.fence)
)

_COLUMNS = ("number", "last_line", "lines")
_of_lines = _holding(
    rows(
        "reported", id=Uuid, fence=BigInteger, number=Integer, last_line=BigInteger, lines=JSONB, superfluous=BigInteger
    ),
    *_COLUMNS,
    "superfluous",
)
_delete_lines = (
    delete(AttemptLines)
    .where(
        AttemptLines.job_id == _of_lines.c.id,
        AttemptLines.fence == _of_lines.c.fence,
        AttemptLines.last_line <= _of_lines.c.superfluous,
    )
    .cte("deleted")
)
_append_lines = (
    insert(AttemptLines)
    .from_select(
        ["job_id", "fence", *_COLUMNS],
        select(_of_lines.c.id, _of_lines.c.fence, *(_of_lines.c[name] for name in _COLUMNS)),
    )
    .on_conflict_do_nothing()  # stored before, by a statement whose reply was lost
    .cte("appended")
)
_store_lines = select(_of_lines.c.id, _of_lines.c.fence).add_cte(_delete_lines, _append_lines)


def report(progress: Iterable[tuple[StartedAttempt, dict[str, Any]]]) -> Attempts:
    """Store the newest progress, {percent, message}, of these attempts in one statement.

    Returns the attempts for which it was stored. The others have lost their leases, or their rows were locked.
    Raises StoreUnavailable.
    """
    records = [{"id": str(started.job_id), "fence": started.fence, "progress": newest} for started, newest in progress]
    with statement() as connection:
        return {(job_id, fence) for job_id, fence in connection.execute(_store_progress, {"rows": records})}


def append_lines(chunks: Sequence[Chunk]) -> Attempts:
    """Append lines to the logs of these attempts and delete superfluous ones, in one statement.

    Doesn't change the version of a job. Returns the attempts for which lines were stored, as `report` does.
    Raises StoreUnavailable: the lines may have been stored then; storing them again is harmless.
    """
    records = [
        {
            "id": str(chunk.started.job_id),
            "fence": chunk.started.fence,
            "number": chunk.started.attempt,
            "last_line": chunk.lines.last,
            "lines": chunk.lines.lines,
            "superfluous": chunk.superfluous,
        }
        for chunk in chunks
    ]
    with statement() as connection:
        return {(job_id, fence) for job_id, fence in connection.execute(_store_lines, {"rows": records})}
