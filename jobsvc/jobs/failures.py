"""Groups of failures: FAILED and RETRYING jobs with the same type and error, among the newest of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, Double, Integer, Row, Text, cast, column, func, literal_column, select, true, union_all
from sqlalchemy.orm import aliased

from jobsvc.db.conditions import first_line
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, read_in_index_order
from jobsvc.jobs.filters import Filter, has_status
from jobsvc.jobs.stats import reused_if_slow
from jobsvc.states import Status

SAMPLE = 10_000
"""Number of newest FAILED and RETRYING jobs that are grouped."""

MAX_GROUPS = 200
"""Maximum number of groups returned: those whose last failure is the newest."""

BINS = 24
"""Number of equal periods for which failures are counted, from the first failure of the sample until now."""


@dataclass(frozen=True)
class FailureGroup:
    """FAILED and RETRYING jobs with the same type, error type and first line of the error's message.

    line: as in a Filter's `error`. first_seen, last_seen: when the last attempt of a job failed;
    for a RETRYING job when it started. bins: number of jobs in each of BINS periods. last_job_id: the newest job.
    """

    type: str
    error_type: str
    line: str
    count: int
    first_seen: datetime
    last_seen: datetime
    bins: Sequence[int]
    last_job_id: UUID
    statuses: Mapping[Status, int]


@dataclass(frozen=True)
class FailureGroups:
    """Groups of failures, by descending `last_seen`. `since`: start of the first bin; None without failures.

    groups_found: the number of groups, of which at most MAX_GROUPS are in `groups`. is_complete: False if there are
    more than SAMPLE such jobs in the table, of which only the newest were grouped.
    """

    groups: Sequence[FailureGroup]
    since: datetime | None
    groups_found: int
    is_complete: bool


def failure_groups(
    *,
    type: str | None = None,  # noqa: A002
    queue: str | None = None,
    sample: int = SAMPLE,
) -> FailureGroups:
    """Group the failures, of one type or queue if given. The sample is taken before they are selected.

    Webhook deliveries are grouped only if their type is given.
    """
    newest = _newest(sample)
    failed = _failed(newest, sample, Filter(type=type, queue=queue))
    groups = _groups(failed)
    total = select(func.count()).select_from(newest).scalar_subquery()
    since = select(func.min(failed.c.seen)).scalar_subquery()
    shown = (
        groups.select().order_by(groups.c.last_seen.desc(), groups.c.last_job_id.desc()).limit(MAX_GROUPS).subquery()
    )
    found = select(func.count()).select_from(groups).scalar_subquery()
    one = select(total.label("total"), since.label("since"), found.label("found")).subquery()
    with transaction() as connection:
        connection.execute(read_in_index_order)
        rows = connection.execute(select(one, shown).outerjoin_from(one, shown, true())).all()
    return FailureGroups(
        groups=[_group(row) for row in rows if row.type is not None],
        since=rows[0].since,
        groups_found=rows[0].found,
        is_complete=rows[0].total <= sample,
    )


SLOW_SECONDS = 0.05
"""Duration above which groups are used again; open pages ask for them every 2 s."""

recent_failure_groups = reused_if_slow(failure_groups, SLOW_SECONDS)
"""Group all failures. With many of them the groups may be some seconds old."""


def _newest(size: int) -> CTE:
    """Select the newest failures of each status, and one more to see whether there are more."""
    seen = func.coalesce(Job.finished_at, Job.started_at, Job.created_at).label("seen")
    columns: tuple[Any, ...] = (Job.id, Job.type, Job.queue, Job.status, Job.error, seen)
    each = [
        select(*columns).where(has_status(status), Job.error.is_not(None)).order_by(Job.id.desc()).limit(size + 1)
        for status in (Status.FAILED, Status.RETRYING)
    ]
    return union_all(*(select(part.subquery()) for part in each)).cte("newest")


def _failed(newest: CTE, size: int, which: Filter) -> CTE:
    """Select those of the newest `size` failures that match, with the type and the first line of their error."""
    sample = select(newest).order_by(newest.c.id.desc()).limit(size).subquery()
    job = aliased(Job, sample)
    # One call for both fields: `->>` would decompress a long error each time.
    record = func.jsonb_to_record(sample.c.error).table_valued(column("type", Text), column("message", Text))
    error = record.render_derived(name="e", with_types=True)
    line = literal_column(first_line("e.message"), Text).label("line")
    columns = (sample.c.id, sample.c.type, sample.c.status, sample.c.seen, error.c.type.label("error_type"), line)
    return select(*columns).select_from(sample).join(error, true()).where(*which.conditions(job)).cte("failed")


def _groups(failed: CTE) -> CTE:
    """Count the failures of each group, in all and in each bin."""
    since = select(func.min(failed.c.seen)).scalar_subquery()
    age = cast(func.extract("epoch", failed.c.seen - since), Double)
    period = func.greatest(cast(func.extract("epoch", now() - since), Double), 1)
    bin_ = func.least(cast(func.floor(BINS * age / period), Integer), BINS - 1).label("bin")
    key = (failed.c.type, failed.c.error_type, failed.c.line)
    in_bin = (
        select(
            *key,
            bin_,
            func.count().label("jobs"),
            func.count().filter(failed.c.status == Status.FAILED).label("failed"),
            func.min(failed.c.seen).label("first_seen"),
            func.max(failed.c.seen).label("last_seen"),
            func.max(cast(failed.c.id, Text)).label("last_job_id"),  # max(uuid) needs PostgreSQL 18
        )
        .group_by(*key, bin_)
        .subquery()
        .c
    )
    return (
        select(
            in_bin.type,
            in_bin.error_type,
            in_bin.line,
            cast(func.sum(in_bin.jobs), Integer).label("jobs"),
            cast(func.sum(in_bin.failed), Integer).label("failed"),
            func.min(in_bin.first_seen).label("first_seen"),
            func.max(in_bin.last_seen).label("last_seen"),
            func.max(in_bin.last_job_id).label("last_job_id"),
            func.jsonb_object_agg(in_bin.bin, in_bin.jobs).label("bins"),
        )
        .group_by(in_bin.type, in_bin.error_type, in_bin.line)
        .cte("groups")
    )


def _group(row: Row[Any]) -> FailureGroup:
    return FailureGroup(
        type=row.type,
        error_type=row.error_type,
        line=row.line,
        count=row.jobs,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        bins=[row.bins.get(str(number), 0) for number in range(BINS)],
        last_job_id=UUID(row.last_job_id),
        statuses={Status.FAILED: row.failed, Status.RETRYING: row.jobs - row.failed},
    )
