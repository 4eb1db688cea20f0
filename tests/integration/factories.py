"""Factories of jobs in each state, and queries of their rows."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db.engine import transaction
from jobsvc.jobs import AttemptResult, Dispatch, Failure, NewJob, StartedAttempt
from jobsvc.states import Outcome

LEASE = 15.0


def new(**changes: Any) -> NewJob:
    defaults: dict[str, Any] = {
        "type": "TEST_JOB",
        "queue": "default",
        "payload": {},
        "timeout": 180,
        "retry_intervals": [1.0, 5.0, 25.0],
    }
    return NewJob(**{**defaults, **changes})


def submit(**changes: Any) -> UUID:
    [job] = jobs.submit([new(**changes)])
    return job.job_id


def dispatches(jobs_wanted: list[NewJob]) -> list[Dispatch]:
    """Submit these, and what is to be dispatched of them."""
    return [one.dispatch for one in jobs.submit(jobs_wanted) if one.dispatch]


def started(**changes: Any) -> StartedAttempt:
    [one] = jobs.start([submit(**changes)], "worker", LEASE)
    return one


def outcome(start: StartedAttempt, ending: Outcome, **more: Any) -> AttemptResult:
    failure = None if ending in (Outcome.COMPLETED, Outcome.SNOOZED) else Failure("ValueError", "no", "trace")
    return AttemptResult(start.job_id, start.fence, ending, failure=failure, **more)


def sql(statement: str, **parameters: Any) -> Any:
    with transaction() as connection:
        result = connection.execute(text(statement), parameters)
        return result.all() if result.returns_rows else result.rowcount


def make_due(job_id: UUID) -> None:
    """Let the time pass until the job is due."""
    sql("UPDATE jobs SET due_at = now() WHERE id = :id", id=job_id)


def lapse(job_id: UUID) -> None:
    """Let the time pass until the job's lease has lapsed."""
    sql("UPDATE jobs SET lease_expires_at = now() - interval '1 ms' WHERE id = :id", id=job_id)
