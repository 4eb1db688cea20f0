"""The same by the thousand: every job that a filter means, in batches that each are a transaction of their own.

What was done stays done when a later batch can't be, and to ask again does the rest. Jobs that are
made after the first batch was read are not meant.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, func, select, text
from sqlalchemy.orm import aliased

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import IS_UNFINISHED, Job
from jobsvc.db.sql import now
from jobsvc.errors import UniqueKeyTaken
from jobsvc.jobs.actions import CANCELLABLE, RETRYABLE, cancel_these, retry_these
from jobsvc.jobs.claims import Dispatch
from jobsvc.jobs.filters import Filter
from jobsvc.states import Status

BATCH = 1000
"""The most jobs that one transaction changes."""

_holder = aliased(Job, name="holder")
# A bare name in a subquery is that of the table within: the holder's.
_key_is_taken = exists().where(
    _holder.type == Job.type,
    _holder.unique_key == Job.unique_key,
    text(IS_UNFINISHED),
)


def cancel_all(wanted: Filter) -> Iterator[dict[UUID, Status]]:
    """Cancel every unfinished job that is meant; yields how each of a batch stands when that is committed."""
    among = _allowed(wanted, CANCELLABLE)
    for batch in _batches(wanted, among):
        yield _cancel([job.id for job in batch], among)


@retrying
def _cancel(job_ids: Sequence[UUID], among: Sequence[Status]) -> dict[UUID, Status]:
    with transaction() as connection:
        return cancel_these(connection, job_ids, among)


def retry_all(wanted: Filter) -> Iterator[list[Dispatch]]:
    """Retry every job that is meant and FAILED or was CANCELLED; yields what is to be dispatched of each batch.

    One whose unique key another job has is passed by; of several with the same key the oldest is retried.
    """
    among = _allowed(wanted, RETRYABLE)
    for batch in _batches(wanted, among):
        first: dict[tuple[Any, ...], UUID] = {}
        for job in batch:
            if not job.key_is_taken:
                first.setdefault((job.type, job.unique_key) if job.unique_key else (job.id,), job.id)
        yield _retry(list(first.values()), among)


def retry_listed(job_ids: Sequence[UUID]) -> Iterator[list[Dispatch]]:
    """Retry those of these jobs that are FAILED or CANCELLED; yields what is to be dispatched of each batch.

    Passes by ids without a job, and jobs whose unique key another job has.
    """
    for at in range(0, len(job_ids), BATCH):
        yield _retry(job_ids[at : at + BATCH], RETRYABLE)


def count_cancellable(wanted: Filter, at_most: int) -> int:
    """How many jobs `cancel_all` would mean now; it counts no further than `at_most`."""
    return _count(wanted, CANCELLABLE, at_most)


def count_retryable(wanted: Filter, at_most: int) -> int:
    """How many jobs `retry_all` would mean now, also those whose key is taken; it counts no further than `at_most`."""
    return _count(wanted, RETRYABLE, at_most)


def _count(wanted: Filter, statuses: Sequence[Status], at_most: int) -> int:
    among = _allowed(wanted, statuses)
    meant = select(Job.id).where(*wanted.conditions(), Job.status.in_(among)).limit(at_most).subquery()
    with transaction() as connection:
        return connection.scalar(select(func.count()).select_from(meant)) or 0


def _retry(job_ids: Sequence[UUID], among: Sequence[Status]) -> list[Dispatch]:
    try:
        return _retry_together(job_ids, among)
    except UniqueKeyTaken:  # a moment ago: then one by one, all but that one
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
    """The jobs that are meant, as they stood when their batch was read, in the order of their ids."""
    begun, after = None, UUID(int=0)
    while among:
        with transaction() as connection:
            begun = begun or connection.scalar(select(now()))
            batch = connection.execute(
                select(Job.id, Job.type, Job.unique_key, _key_is_taken.label("key_is_taken"))
                .where(*wanted.conditions(), Job.status.in_(among), Job.id > after, Job.created_at <= begun)
                .order_by(Job.id)
                .limit(BATCH)
            ).all()
        if not batch:
            return
        yield batch
        after = batch[-1].id
