"""Manual actions on all jobs that match a filter: cancel, retry, delete.

They work in batches. Each batch is one transaction. If a batch fails, the earlier ones stay committed; calling again
processes the rest. Jobs created after the first batch was read are not included.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, func, select, text
from sqlalchemy.orm import aliased

from jobsvc.db.conditions import IS_UNFINISHED
from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now
from jobsvc.errors import UniqueKeyTaken
from jobsvc.jobs.actions import CANCELLABLE, RETRYABLE, cancel_these, remove_these, retry_these
from jobsvc.jobs.claims import Dispatch
from jobsvc.jobs.filters import Filter
from jobsvc.states import ENDED, Status

BATCH = 1000
"""Maximum number of jobs changed by one transaction."""

_holder = aliased(Job, name="holder")
# IS_UNFINISHED has bare column names; in this subquery they resolve to the holder's columns.
_key_is_taken = exists().where(
    _holder.type == Job.type,
    _holder.unique_key == Job.unique_key,
    text(IS_UNFINISHED),
)


def cancel_all(wanted: Filter) -> Iterator[dict[UUID, Status]]:
    """Cancel all matching unfinished jobs; yields the new status by job id of each committed batch."""
    among = _allowed(wanted, CANCELLABLE)
    for batch in _batches(wanted, among):
        yield _cancel([job.id for job in batch], among)


@retrying
def _cancel(job_ids: Sequence[UUID], among: Sequence[Status]) -> dict[UUID, Status]:
    with transaction() as connection:
        return cancel_these(connection, job_ids, among)


def retry_all(wanted: Filter) -> Iterator[list[Dispatch]]:
    """Retry all matching FAILED and CANCELLED jobs; yields the dispatches of each committed batch.

    Skips jobs whose unique key another unfinished job has. Of several with the same key, retries the oldest.
    """
    among = _allowed(wanted, RETRYABLE)
    for batch in _batches(wanted, among):
        first: dict[tuple[Any, ...], UUID] = {}
        for job in batch:
            if not job.key_is_taken:
                first.setdefault((job.type, job.unique_key) if job.unique_key else (job.id,), job.id)
        yield _retry(list(first.values()), among)


def retry_listed(job_ids: Sequence[UUID]) -> Iterator[list[Dispatch]]:
    """Retry the given jobs that are FAILED or CANCELLED; yields the dispatches of each committed batch.

    Skips ids without a job, and jobs whose unique key another unfinished job has.
    """
    for at in range(0, len(job_ids), BATCH):
        yield _retry(job_ids[at : at + BATCH], RETRYABLE)


def remove_all(wanted: Filter) -> Iterator[Sequence[UUID]]:
    """Delete all matching ended jobs and their attempts; yields the ids of each committed batch."""
    among = _allowed(wanted, ENDED)
    for batch in _batches(wanted, among):
        yield _remove([job.id for job in batch], among)


@retrying
def _remove(job_ids: Sequence[UUID], among: Sequence[Status]) -> Sequence[UUID]:
    with transaction() as connection:
        return remove_these(connection, job_ids, among)


def count_cancellable(wanted: Filter, at_most: int) -> int:
    """Return how many jobs `cancel_all` would cancel now, counted up to `at_most`."""
    return _count(wanted, CANCELLABLE, at_most)


def count_retryable(wanted: Filter, at_most: int) -> int:
    """Return how many jobs match `retry_all` now, including those whose key is taken, counted up to `at_most`."""
    return _count(wanted, RETRYABLE, at_most)


def count_removable(wanted: Filter, at_most: int) -> int:
    """Return how many jobs `remove_all` would delete now, counted up to `at_most`."""
    return _count(wanted, ENDED, at_most)


def _count(wanted: Filter, statuses: Sequence[Status], at_most: int) -> int:
    among = _allowed(wanted, statuses)
    meant = select(Job.id).where(*wanted.conditions(), Job.status.in_(among)).limit(at_most).subquery()
    with transaction() as connection:
        return connection.scalar(select(func.count()).select_from(meant)) or 0


def _retry(job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Dispatch]:
    try:
        return _retry_together(job_ids, among)
    except UniqueKeyTaken:  # race: taken since the batch was read. Retry one by one, without that job
        done: list[Dispatch] = []
        for job_id in job_ids:
            with suppress(UniqueKeyTaken):
                done += _retry_together([job_id], among)
        return done


@retrying
def _retry_together(job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Dispatch]:
    with transaction() as connection:
        return retry_these(connection, job_ids, among)


def _allowed(wanted: Filter, statuses: Sequence[Status]) -> list[Status]:
    return [status for status in statuses if not wanted.statuses or status in wanted.statuses]


def _batches(wanted: Filter, among: Sequence[Status]) -> Iterator[Sequence[Row[UUID, str, str | None, bool]]]:
    """Yield batches of matching jobs in the order of their ids, each as of the time when it was read."""
    first_read_at, after = None, UUID(int=0)
    while among:
        with transaction() as connection:
            first_read_at = first_read_at or connection.scalar(select(now()))
            batch = connection.execute(
                select(Job.id, Job.type, Job.unique_key, _key_is_taken.label("key_is_taken"))
                .where(*wanted.conditions(), Job.status.in_(among), Job.id > after, Job.created_at <= first_read_at)
                .order_by(Job.id)
                .limit(BATCH)
            ).all()
        if not batch:
            return
        yield batch
        after = batch[-1].id
