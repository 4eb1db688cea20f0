"""Changes to watched jobs: new versions of many jobs by one query, and new log lines."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    select,
    true,
    tuple_,
    union_all,
)

from jobsvc.db.engine import statement
from jobsvc.db.models import Attempt, AttemptLines, Job
from jobsvc.db.sql import rows
from jobsvc.jobs.log_lines import Line, Lines, dropped
from jobsvc.states import ENDED, Status


@dataclass(frozen=True)
class Snapshot:
    """The status and progress of a job. `version` grows with every visible change."""

    job_id: UUID
    version: int
    status: Status
    attempts: int
    progress: dict[str, Any] | None
    error: dict[str, Any] | None
    fence: int = 0

    @classmethod
    def of(cls, job: Job) -> "Snapshot":
        """Return the snapshot of this job's row."""
        return cls(job.id, job.version, Status(job.status), job.attempts, job.progress, job.error, job.fence)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def last_ended_fence(self) -> int:
        """The fence of the last attempt that has ended."""
        return self.fence - 1 if self.status == Status.PROCESSING else self.fence


_known = rows("known", id=Uuid, version=BigInteger)
_changes = (
    select(_known.c.id, Job.version, Job.status, Job.attempts, Job.progress, Job.error, Job.fence)
    .select_from(_known.outerjoin(Job, Job.id == _known.c.id))
    .where(Job.version.is_distinct_from(_known.c.version))
)


def changes(known: Mapping[UUID, int]) -> dict[UUID, Snapshot | None]:
    """Return the current state of the jobs whose version is not the known one, by id; None for a deleted job."""
    with statement() as connection:
        found = connection.execute(
            _changes, {"rows": [{"id": str(job_id), "version": version} for job_id, version in known.items()]}
        )
        return {row.id: None if row.version is None else Snapshot(*row) for row in found}


class Position(NamedTuple):
    """A position in a job's log: after this line of the attempt with this fence."""

    fence: int
    line: int


START = Position(0, 0)
"""The position before a job's first line."""

AT_ONCE = 50
"""Number of portions of lines read by one query; each may be large."""

_watched = (
    func.unnest(cast(bindparam("ids", type_=ARRAY(Text)), ARRAY(Uuid)))
    .table_valued("id", name="watched")
    .render_derived()
)
_newest = (
    select(AttemptLines.fence, AttemptLines.last_line)
    .where(AttemptLines.job_id == _watched.c.id)
    .order_by(AttemptLines.fence.desc(), AttemptLines.last_line.desc())
    .limit(1)
    .lateral("newest")
)
_latest_lines = select(_watched.c.id, _newest.c.fence, _newest.c.last_line).select_from(_watched.join(_newest, true()))


def latest_lines(job_ids: Iterable[UUID]) -> dict[UUID, Position]:
    """Return the position of the newest line stored during an attempt, by job id; jobs without one are left out."""
    with statement() as connection:
        found = connection.execute(_latest_lines, {"ids": [str(job_id) for job_id in job_ids]})
        return {row.id: Position(row.fence, row.last_line) for row in found}


class NumberedLine(NamedTuple):
    """A line of a job's log: its position, its attempt's number as in `ctx.attempt`, and the line."""

    position: Position
    attempt: int
    line: Line


_of: BindParameter[UUID] = bindparam("job", type_=Uuid)
_after_fence: BindParameter[int] = bindparam("fence", type_=BigInteger)
_after_line: BindParameter[int] = bindparam("line", type_=BigInteger)
_last_line = func.coalesce(Attempt.last_line, func.jsonb_array_length(Attempt.logs))
_portions = union_all(
    select(
        AttemptLines.fence.label("fence"), AttemptLines.last_line.label("last"), AttemptLines.number, AttemptLines.lines
    ).where(
        AttemptLines.job_id == _of,
        tuple_(AttemptLines.fence, AttemptLines.last_line) > tuple_(_after_fence, _after_line),
    ),
    select(Attempt.fence, _last_line, Attempt.number, Attempt.logs).where(
        Attempt.job_id == _of,
        Attempt.fence >= _after_fence,
        Attempt.logs.is_not(None),
        tuple_(Attempt.fence, cast(_last_line, BigInteger)) > tuple_(_after_fence, _after_line),
    ),
).subquery("portions")
_lines_after = (
    select(_portions)
    .where(_portions.c.fence <= bindparam("upto", type_=BigInteger))
    .order_by(_portions.c.fence, _portions.c.last, func.jsonb_array_length(_portions.c.lines).desc())
    .limit(AT_ONCE)
)


def last_line(job_id: UUID, fence: int) -> int | None:
    """Return the number of an attempt's last stored line; None if there is none."""
    appended = select(AttemptLines.last_line.label("last")).where(
        AttemptLines.job_id == job_id, AttemptLines.fence == fence
    )
    with_end = select(_last_line).where(Attempt.job_id == job_id, Attempt.fence == fence)
    found = union_all(appended, with_end).subquery()
    with statement() as connection:
        last: int | None = connection.scalar(select(func.max(found.c.last)))
        return last


def lines_after(job_id: UUID, position: Position, upto_fence: int) -> Iterator[NumberedLine]:
    """Yield a job's stored lines after `position`, of attempts up to `upto_fence`, in order.

    A gap is replaced by one line that says how many are missing. Reads AT_ONCE portions by each statement.
    """
    while True:
        with statement() as connection:
            asked = {"job": job_id, "fence": position.fence, "line": position.line, "upto": upto_fence}
            found = connection.execute(_lines_after, asked).all()
        for fence, last, attempt, some in found:
            line = position.line if fence == position.fence else 0
            lines = Lines(last, some).after(line)
            if lines.lines and lines.before > line:
                missing = Position(fence, lines.before)
                yield NumberedLine(missing, attempt, dropped(lines.before - line, lines.lines[0]))
            for number, one in enumerate(lines.lines, start=lines.before + 1):
                yield NumberedLine(Position(fence, number), attempt, one)
            position = Position(fence, last)
        if len(found) < AT_ONCE:
            return
