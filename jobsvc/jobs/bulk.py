"""Manual actions on all jobs that match a filter: cancel, retry, delete.

They work in batches. Each batch is one transaction. If a batch fails, the earlier ones stay committed; calling again
processes the rest. Jobs created after the first batch was read are not included. Payloads are searched by walks.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, func, select, text
from sqlalchemy.orm import aliased

from jobsvc.db.conditions import IS_UNFINISHED
from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now
from jobsvc.errors import UniqueKeyTaken
from jobsvc.jobs.actions import CANCELLABLE, RETRYABLE, cancel_these, remove_these
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.payload_search import MAX_ROWS, portions
from jobsvc.jobs.retries import Retried, retry_these
from jobsvc.states import ENDED, Status

BATCH = 1000
"""Maximum number of jobs changed by one transaction."""

MAX_WALK = 100_000
"""Number of rows in which one walk searches for a payload."""


@dataclass
class Walk:
    """A bounded search for a payload, by ascending id.

    after: the id after which it starts. next: the id after which another walk goes on, set at the end of this one; None
    if no job is left. An action on a filter without payload ignores its walk; without a walk it searches all jobs.
    """

    after: UUID | None = None
    next: UUID | None = None


_holder = aliased(Job, name="holder")
# IS_UNFINISHED has bare column names; in this subquery they resolve to the holder's columns.
_key_is_taken = exists().where(
    _holder.type == Job.type,
    _holder.unique_key == Job.unique_key,
    text(IS_UNFINISHED),
)


def cancel_all(wanted: Filter, walk: Walk | None = None) -> Iterator[dict[UUID, Status]]:
    """Cancel all matching unfinished jobs; yields the new status by job id of each committed batch."""
    among = _allowed(wanted, CANCELLABLE)
    for batch in _batches(wanted, among, walk):
        yield _cancel([job.id for job in batch], among)


@retrying
def _cancel(job_ids: Sequence[UUID], among: Sequence[Status]) -> dict[UUID, Status]:
    with transaction() as connection:
        return cancel_these(connection, job_ids, among)


def retry_all(wanted: Filter, walk: Walk | None = None) -> Iterator[list[Retried]]:
    """Retry all matching FAILED and CANCELLED jobs; yields the retried jobs of each committed batch.

    Skips jobs whose unique key another unfinished job has, and those to be cancelled with a dependency that ended
    without success. Of several with the same key, retries the oldest.
    """
    among = _allowed(wanted, RETRYABLE)
    for batch in _batches(wanted, among, walk):
        first: dict[tuple[Any, ...], UUID] = {}
        for job in batch:
            if not job.key_is_taken:
                first.setdefault((job.type, job.unique_key) if job.unique_key else (job.id,), job.id)
        yield _retry(list(first.values()), among)


def retry_listed(job_ids: Sequence[UUID]) -> Iterator[list[Retried]]:
    """Retry the given jobs that are FAILED or CANCELLED; yields the retried jobs of each committed batch.

    Skips ids without a job, jobs whose unique key another unfinished job has, and those to be cancelled with a
    dependency that ended without success.
    """
    for at in range(0, len(job_ids), BATCH):
        yield _retry(job_ids[at : at + BATCH], RETRYABLE)


def remove_all(wanted: Filter, walk: Walk | None = None) -> Iterator[Sequence[UUID]]:
    """Delete all matching ended jobs and their attempts; yields the ids of each committed batch."""
    among = _allowed(wanted, ENDED)
    for batch in _batches(wanted, among, walk):
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
    if wanted.payload is not None:
        return _count_searched(replace(wanted, statuses=among), at_most) if among else 0
    meant = select(Job.id).where(*wanted.conditions(), Job.status.in_(among)).limit(at_most).subquery()
    with transaction() as connection:
        return connection.scalar(select(func.count()).select_from(meant)) or 0


def _count_searched(wanted: Filter, at_most: int) -> int:
    total = 0
    for portion in portions(wanted):
        total += len(portion.ids)
        if total >= at_most:
            return at_most
    return total


def _retry(job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Retried]:
    try:
        return _retry_together(job_ids, among)
    except UniqueKeyTaken:  # race: taken since the batch was read. Retry one by one, without that job
        done: list[Retried] = []
        for job_id in job_ids:
            with suppress(UniqueKeyTaken):
                done += _retry_together([job_id], among)
        return done


@retrying
def _retry_together(job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Retried]:
    with transaction() as connection:
        return retry_these(connection, job_ids, among).done


def _allowed(wanted: Filter, statuses: Sequence[Status]) -> list[Status]:
    return [status for status in statuses if not wanted.statuses or status in wanted.statuses]


_Batch = Sequence[Row[UUID, str, str | None, bool]]
_batch = select(Job.id, Job.type, Job.unique_key, _key_is_taken.label("key_is_taken")).order_by(Job.id)


def _batches(wanted: Filter, among: Sequence[Status], walk: Walk | None) -> Iterator[_Batch]:
    """Yield batches of matching jobs in the order of their ids, each as of the time when it was read."""
    if wanted.payload is not None:
        yield from _searched(wanted, among, walk) if among else ()
        return
    first_read_at, after = None, UUID(int=0)
    while among:
        with transaction() as connection:
            first_read_at = first_read_at or connection.scalar(select(now()))
            meant = (*wanted.conditions(), Job.status.in_(among), Job.created_at <= first_read_at)
            batch = connection.execute(_batch.where(*meant, Job.id > after).limit(BATCH)).all()
        if not batch:
            return
        yield batch
        after = batch[-1].id


def _searched(wanted: Filter, among: Sequence[Status], walk: Walk | None) -> Iterator[_Batch]:
    """Yield batches of the jobs found by a walk, or by a search through all jobs."""
    with transaction() as connection:
        started_at: Any = connection.scalar(select(now()))
    before = min(started_at, wanted.created_before or started_at)
    searched = portions(replace(wanted, statuses=among, created_before=before), walk.after if walk else None)
    for portion in islice(searched, MAX_WALK // MAX_ROWS if walk else None):
        for at in range(0, len(portion.ids), BATCH):
            with transaction() as connection:
                batch = connection.execute(_batch.where(Job.id.in_(portion.ids[at : at + BATCH]))).all()
            yield batch
        if walk:
            walk.next = portion.next
