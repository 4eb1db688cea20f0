"""Results of attempts, and storing them. A result is stored only if its fence is the job's current one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Connection,
    Double,
    Integer,
    Row,
    Text,
    Uuid,
    case,
    func,
    insert,
    null,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Attempt, Job
from jobsvc.db.sql import now, rows, seconds, seconds_since
from jobsvc.jobs.claims import last_intervals
from jobsvc.jobs.cleanup import is_trim_due, trim_history
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.webhooks import announce
from jobsvc.states import Outcome, Status

UNCOUNTED = (Outcome.SNOOZED, Outcome.HANDED_BACK)
"""Outcomes of a start that doesn't count as an attempt."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed."""

    type: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True)
class AttemptResult:
    """The result of an attempt.

    delay: seconds until the next start, instead of the job's retry interval.
    logs: lines not stored yet, [{time, level, message}]; the last one has the number `last_line`, from 1.
    handler_called: False if the handler was never called.
    """

    job_id: UUID
    fence: int
    outcome: Outcome
    result: Any = None
    failure: Failure | None = None
    delay: float | None = None
    progress: dict[str, Any] | None = None
    logs: list[dict[str, Any]] | None = None
    last_line: int = 0
    handler_called: bool = True

    @property
    def is_plain(self) -> bool:
        """True if the attempt completed without a result value, progress or logs."""
        return self.outcome == Outcome.COMPLETED and self.result is None and not self.progress and not self.logs


def lost(job_id: UUID, fence: int, message: str) -> AttemptResult:
    """Return the result of an attempt whose worker was lost; `message` says why."""
    return AttemptResult(job_id, fence, Outcome.LOST, failure=Failure("WorkerLost", message))


def completed(job_id: UUID, fence: int, result: Any = None) -> AttemptResult:
    """Return the result of an attempt whose handler returned `result`."""
    return AttemptResult(job_id, fence, Outcome.COMPLETED, result)


def returned_uncounted(job_id: UUID, fence: int, handler_called: bool = True) -> AttemptResult:
    """Return the result that returns a job to its queue, uncounted."""
    return AttemptResult(job_id, fence, Outcome.HANDED_BACK, delay=0, handler_called=handler_called)


@dataclass(frozen=True)
class JobTransition:
    """The state of a job after an attempt. While it waits: when it is due, and its remaining retry intervals (s)."""

    job_id: UUID
    status: Status
    due_at: datetime
    intervals_left: list[float]
    concurrency_key: str | None = None


_done = rows(
    "done",
    n=Integer,
    id=Uuid,
    fence=BigInteger,
    outcome=Text,
    logged=Boolean,
    result=JSONB,
    error=JSONB,
    delay=Double,
    progress=JSONB,
    handler_not_called=Boolean,
)
_attempts_left = Job.max_attempts - Job.attempts
_failed = _done.c.outcome.in_((Outcome.FAILED, Outcome.TIMEOUT, Outcome.LOST))
_uncounted = _done.c.outcome.in_(UNCOUNTED)
# After a cancel request the job is not run again, unless the attempt completed.
_is_called_off = (_done.c.outcome == Outcome.CANCELLED) | (
    Job.cancel_requested_at.is_not(None) & (_done.c.outcome != Outcome.COMPLETED)
)
# A success without logs needs no row in `attempts`; reading these columns for it would take longer than storing it.
_has_more = (_done.c.outcome != Outcome.COMPLETED) | _done.c.logged
_goes_on = ~_is_called_off & (_uncounted | (_failed & (_attempts_left > 0)))
_has_met_expiry = _goes_on & _done.c.handler_not_called.is_(None)
_own_interval = Job.retry_intervals[func.cardinality(Job.retry_intervals) - _attempts_left + 1]
_finish = (
    update(Job)
    .where(Job.id == _done.c.id, Job.fence == _done.c.fence, Job.status == Status.PROCESSING)
    .values(
        status=case(
            (_done.c.outcome == Outcome.COMPLETED, Status.COMPLETED),
            (_is_called_off, Status.CANCELLED),
            (_done.c.outcome == Outcome.SNOOZED, Status.SCHEDULED),
            (_done.c.outcome == Outcome.HANDED_BACK, Status.PENDING),
            (_goes_on, Status.RETRYING),
            else_=Status.FAILED,
        ),
        attempts=case((_uncounted, Job.attempts - 1), else_=Job.attempts),
        due_at=case((_goes_on, now() + seconds(func.coalesce(_done.c.delay, _own_interval))), else_=Job.due_at),
        finished_at=case((_goes_on, null()), else_=now()),
        # An expiry applies to the first attempt only. Afterwards it is still shown, without effect.
        expires_at=case((_has_met_expiry, null()), else_=Job.expires_at),
        expiry_met=case((_has_met_expiry, func.coalesce(Job.expires_at, Job.expiry_met)), else_=Job.expiry_met),
        result=_done.c.result,
        error=func.coalesce(_done.c.error.op("||")(func.jsonb_build_object("attempt", Job.attempts)), Job.error),
        progress=func.coalesce(_done.c.progress, Job.progress),
        lease_expires_at=null(),
        version=Job.version + 1,
    )
    .returning(
        *(_done.c.n, _done.c.outcome, Job.type, Job.queue, Job.status, Job.due_at, Job.concurrency_key),
        *(Job.webhook_url, Job.attempts, Job.max_attempts),
        *(case((_has_more, column)).label(column.key) for column in (Job.retry_intervals, Job.worker, Job.started_at)),
        case((_done.c.outcome != Outcome.LOST, seconds_since(Job.started_at))).label("took"),
    )
)
_finish_counted = counting(
    _finish,
    lambda job: Count(case((job.outcome == Outcome.LOST, Event.LOST), else_=Event.ENDED), job.status, job.took),
)


@retrying
def finish(ends: Sequence[AttemptResult]) -> list[JobTransition]:
    """Store the results of these attempts in one transaction.

    Returns the transition of each job whose attempt still held its lease. Other results are not stored:
    the lease had been lost, and the job's state was decided elsewhere.
    """
    with transaction() as connection:
        return finish_within(connection, ends)


def finish_within(connection: Connection, ends: Sequence[AttemptResult]) -> list[JobTransition]:
    done = [_done_row(n, end) for n, end in enumerate(ends)]
    ended = [(job, ends[job.n]) for job in connection.execute(_finish_counted, {"rows": done})]
    worth_a_row = [
        (job, end) for job, end in ended if end.logs or (end.handler_called and end.outcome != Outcome.COMPLETED)
    ]
    if worth_a_row:
        connection.execute(insert(Attempt), [_attempt_row(job, end) for job, end in worth_a_row])
        for _, end in worth_a_row:
            if is_trim_due(end.fence):
                trim_history(connection, end.job_id)
    announce(connection, [end.job_id for job, end in ended if job.webhook_url])
    return [_verdict(job, end) for job, end in ended]


def _done_row(n: int, end: AttemptResult) -> dict[str, Any]:
    error = {"type": end.failure.type, "message": end.failure.message} if end.failure else None
    more = {"result": end.result, "error": error, "delay": end.delay, "progress": end.progress}
    if not end.handler_called:
        more["handler_not_called"] = True
    return {
        "n": n,
        "id": str(end.job_id),
        "fence": end.fence,
        "outcome": end.outcome,
        "logged": bool(end.logs),
        **{name: value for name, value in more.items() if value is not None},
    }


def _verdict(job: Row[Any], end: AttemptResult) -> JobTransition:
    left = last_intervals(job, job.max_attempts - job.attempts) if job.retry_intervals else []
    return JobTransition(end.job_id, Status(job.status), job.due_at, left, job.concurrency_key)


def _attempt_row(job: Row[Any], end: AttemptResult) -> dict[str, Any]:
    return {
        "job_id": end.job_id,
        "fence": end.fence,
        "number": job.attempts + (end.outcome in UNCOUNTED),
        "worker": job.worker,
        "started_at": job.started_at,
        "outcome": end.outcome,
        "error_type": end.failure.type if end.failure else None,
        "error_message": end.failure.message if end.failure else None,
        "traceback": end.failure.traceback if end.failure else None,
        "logs": end.logs or None,
        "last_line": (end.last_line or len(end.logs)) if end.logs else None,
    }
