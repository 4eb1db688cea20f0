"""Jobs whose unique key another unfinished job has: what their `onConflict` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select, text, tuple_

from jobsvc.db.conditions import IS_UNFINISHED
from jobsvc.db.models import Job
from jobsvc.errors import UniqueKeyConflict
from jobsvc.jobs.amend import Changes, amend_these
from jobsvc.jobs.claims import Dispatch
from jobsvc.states import Status

if TYPE_CHECKING:
    from jobsvc.jobs.submit import NewJob


class OnConflict(StrEnum):
    """What a new job does if another unfinished job of its type has its unique key."""

    RETURN = "return"  # nothing; the other job stands for it
    REJECT = "reject"  # it is refused
    REPLACE = "replace"  # the other job takes its values if it is waiting; else it is refused


class Submitted(NamedTuple):
    """A submitted job's id and its dispatch; the dispatch is None if RQ need not be changed, or the job can't start.

    If another unfinished job has the unique key, the id is that job's. is_new: False then. refusal: why the submitted
    job was refused, else None.
    """

    id: str
    dispatch: Dispatch | None
    is_new: bool = True
    refusal: str | None = None

    @property
    def job_id(self) -> UUID:
        """The id as a UUID, made at each call."""
        return UUID(self.id)


def accepted(submitted: Sequence[Submitted]) -> list[Submitted]:
    """Return these jobs if all were accepted. Raises UniqueKeyConflict: the caller must roll back."""
    if refused := {place: one for place, one in enumerate(submitted) if one.refusal is not None}:
        ours = {one.job_id for one in submitted if one.is_new}
        holder = next((one.job_id for one in refused.values() if one.job_id not in ours), None)
        repeated = "an earlier job of this request has the same uniqueKey"
        raise UniqueKeyConflict(
            holder, {place: repeated if one.job_id in ours else str(one.refusal) for place, one in refused.items()}
        )
    return list(submitted)


def settle(connection: Connection, new: Mapping[int, NewJob], found: dict[int, Submitted]) -> None:
    """Decide on jobs that were not stored since their unique keys were taken; adds the result for each to `found`.

    new, found: by the job's place in the request. A job whose key is free by now gets no result.
    """
    holders = _holders(connection, new.values())
    taken = {place: (job, holders[key]) for place, job in new.items() if (key := _key(job)) in holders}
    # Of several jobs for one holder the last one counts.
    changes = {holder: _changes(job) for job, holder in taken.values() if job.on_conflict == OnConflict.REPLACE}
    amended = amend_these(connection, changes) if changes else {}
    started = _running(connection, changes.keys() - amended.keys())
    dispatches = {holder: one.dispatch for holder, one in amended.items()}
    for place, one in found.items():
        if one.is_new and (dispatch := dispatches.pop(one.job_id, None)):  # it has no entry in RQ yet
            found[place] = one._replace(dispatch=dispatch._replace(change=None))
    for place, (job, holder) in taken.items():
        match job.on_conflict:
            case OnConflict.REJECT:
                refusal = f"the unfinished job {holder} has the uniqueKey"
                found[place] = Submitted(str(holder), None, is_new=False, refusal=refusal)
            case OnConflict.REPLACE if holder in amended:
                found[place] = Submitted(str(holder), dispatches.pop(holder, None), is_new=False)
            case OnConflict.REPLACE if holder in started:
                refusal = f"the job {holder}, which has the uniqueKey, has started, so it can't be replaced"
                found[place] = Submitted(str(holder), None, is_new=False, refusal=refusal)
            case OnConflict.REPLACE:
                pass  # race: it has ended since
            case _:
                found[place] = Submitted(str(holder), None, is_new=False)


def _key(job: NewJob) -> tuple[str, str | None]:
    return job.type, job.unique_key


def _holders(connection: Connection, jobs: Iterable[NewJob]) -> dict[tuple[str, str | None], UUID]:
    """Return the ids of the unfinished jobs that have these jobs' unique keys, by type and key."""
    taken = select(Job.type, Job.unique_key, Job.id).where(
        tuple_(Job.type, Job.unique_key).in_({_key(job) for job in jobs}), text(IS_UNFINISHED)
    )
    return {(row.type, row.unique_key): row.id for row in connection.execute(taken)}


def _running(connection: Connection, job_ids: Iterable[UUID]) -> set[UUID]:
    if not (ids := list(job_ids)):
        return set()
    return set(connection.scalars(select(Job.id).where(Job.id.in_(ids), Job.status == Status.PROCESSING)))


def _changes(job: NewJob) -> Changes:
    return {
        "payload": job.payload,
        "queue": job.queue,
        "delay": job.delay,
        "run_at": job.run_at,
        "retry_intervals": job.retry_intervals,
        "timeout": job.timeout,
        "expires_in": job.expires_in,
        "tags": job.tags,
    }
