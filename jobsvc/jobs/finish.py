"""Stores results of attempts. A result is stored only if its fence is the job's current one."""

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple
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
from jobsvc.jobs.attempt_results import UNCOUNTED, AttemptResult
from jobsvc.jobs.claims import last_intervals
from jobsvc.jobs.cleanup import trim_history
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.releases import Ended, release
from jobsvc.jobs.webhooks import announce
from jobsvc.states import ENDED, Outcome, Status


class JobTransition(NamedTuple):
    """The state of a job after an attempt.

    due_at, intervals_left: while it waits, when it is due, and the intervals (seconds) of its remaining retries.
    has_released: True if other jobs depended on its end, which are due now, or cancelled.
    """

    job_id: UUID
    status: Status
    due_at: datetime
    intervals_left: list[float]
    concurrency_key: str | None = None
    has_released: bool = False


_results = rows(
    "results",
    n=Integer,
    id=Uuid,
    fence=BigInteger,
    outcome=Text,
    is_logged=Boolean,
    result=JSONB,
    error=JSONB,
    delay=Double,
    progress=JSONB,
    handler_not_called=Boolean,
)
_outcome = _results.c.outcome
_attempts_left = Job.max_attempts - Job.attempts
_is_uncounted = _outcome.in_(UNCOUNTED)
_is_retryable = _outcome.in_((Outcome.FAILED, Outcome.TIMEOUT, Outcome.LOST)) & (_attempts_left > 0)
# After a cancel request the job is not run again, unless the attempt completed.
_is_cancelled = (_outcome == Outcome.CANCELLED) | (
    Job.cancel_requested_at.is_not(None) & (_outcome != Outcome.COMPLETED)
)
_runs_again = ~_is_cancelled & (_is_uncounted | _is_retryable)
_has_met_expiry = _runs_again & _results.c.handler_not_called.is_(None)
_interval = Job.retry_intervals[func.cardinality(Job.retry_intervals) - _attempts_left + 1]


def _if_row_needed(column: Any) -> Any:
    # A success without logs needs no row in `attempts`; reading these columns for it would take longer than storing it.
    return case(((_outcome != Outcome.COMPLETED) | _results.c.is_logged, column)).label(column.key)


_finish = counting(
    update(Job)
    .where(Job.id == _results.c.id, Job.fence == _results.c.fence, Job.status == Status.PROCESSING)
    .values(
        status=case(
            (_outcome == Outcome.COMPLETED, Status.COMPLETED),
            (_is_cancelled, Status.CANCELLED),
            (_outcome == Outcome.SNOOZED, Status.SCHEDULED),
            (_outcome == Outcome.HANDED_BACK, Status.PENDING),
            (_runs_again, Status.RETRYING),
            else_=Status.FAILED,
        ),
        attempts=case((_is_uncounted, Job.attempts - 1), else_=Job.attempts),
        due_at=case((_runs_again, now() + seconds(func.coalesce(_results.c.delay, _interval))), else_=Job.due_at),
        finished_at=case((_runs_again, null()), else_=now()),
        # An expiry applies to the first attempt only. Afterwards it is still shown, without effect.
        expires_at=case((_has_met_expiry, null()), else_=Job.expires_at),
        expiry_met=case((_has_met_expiry, func.coalesce(Job.expires_at, Job.expiry_met)), else_=Job.expiry_met),
        result=_results.c.result,
        error=func.coalesce(_results.c.error.op("||")(func.jsonb_build_object("attempt", Job.attempts)), Job.error),
        progress=func.coalesce(_results.c.progress, Job.progress),
        lease_expires_at=null(),
        version=Job.version + 1,
    )
    .returning(
        _results.c.n,
        _outcome,
        Job.type,
        Job.queue,
        Job.status,
        Job.due_at,
        Job.concurrency_key,
        Job.webhook_url,
        Job.has_dependents,
        Job.attempts,
        Job.max_attempts,
        _if_row_needed(Job.retry_intervals),
        _if_row_needed(Job.worker),
        _if_row_needed(Job.started_at),
        case((_outcome != Outcome.LOST, seconds_since(Job.started_at))).label("took"),
    ),
    lambda job: Count(case((job.outcome == Outcome.LOST, Event.LOST), else_=Event.ENDED), job.status, job.took),
)


@retrying
def finish(results: Sequence[AttemptResult]) -> list[JobTransition]:
    """Store the results of these attempts in one transaction.

    Returns the transition of each job whose attempt still had its lease. Other results are not stored:
    the lease had been lost, and the job's state was decided elsewhere. Raises StoreUnavailable.
    """
    with transaction() as connection:
        return finish_within(connection, results)


def finish_within(connection: Connection, results: Sequence[AttemptResult]) -> list[JobTransition]:
    """Store results like `finish`, in the caller's transaction."""
    records = [_result_record(n, result) for n, result in enumerate(results)]
    records.sort(key=itemgetter("id"))  # Postgres locks the rows in this order, as others do (deadlock)
    stored = [(job, results[job.n]) for job in connection.execute(_finish, {"rows": records})]
    with_row = [(job, result) for job, result in stored if result.needs_row]
    if with_row:
        connection.execute(insert(Attempt), [_attempt_record(job, result) for job, result in with_row])
        for _, result in with_row:
            trim_history(connection, result.job_id, result.fence)
    announce(connection, [result.job_id for job, result in stored if job.webhook_url])
    if with_dependents := [(job, result) for job, result in stored if job.has_dependents and job.status in ENDED]:
        release(connection, [Ended(result.job_id, Status(job.status)) for job, result in with_dependents])
    return [_transition(job, result) for job, result in stored]


def _result_record(n: int, result: AttemptResult) -> dict[str, Any]:
    failure = result.failure
    record = {
        "n": n,
        "id": str(result.job_id),
        "fence": result.fence,
        "outcome": result.outcome,
        "is_logged": bool(result.logs),
        "result": result.result,
        "error": {"type": failure.type, "message": failure.message} if failure else None,
        "delay": result.delay,
        "progress": result.progress,
        "handler_not_called": None if result.handler_called else True,
    }
    return {name: value for name, value in record.items() if value is not None}


def _transition(job: Row[Any], result: AttemptResult) -> JobTransition:
    return JobTransition(
        job_id=result.job_id,
        status=Status(job.status),
        due_at=job.due_at,
        intervals_left=last_intervals(job, job.max_attempts - job.attempts) if job.retry_intervals else [],
        concurrency_key=job.concurrency_key,
        has_released=bool(job.has_dependents) and job.status in ENDED,
    )


def _attempt_record(job: Row[Any], result: AttemptResult) -> dict[str, Any]:
    failure = result.failure
    return {
        "job_id": result.job_id,
        "fence": result.fence,
        "number": job.attempts + (result.outcome in UNCOUNTED),
        "worker": job.worker,
        "started_at": job.started_at,
        "outcome": result.outcome,
        "error_type": failure.type if failure else None,
        "error_message": failure.message if failure else None,
        "traceback": failure.traceback if failure else None,
        "logs": result.logs or None,
        "last_line": (result.last_line or len(result.logs)) if result.logs else None,
    }
