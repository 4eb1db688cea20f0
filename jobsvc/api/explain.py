"""Explains why a job is where it is, for the API, the commands and the console."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from jobsvc import jobs
from jobsvc.api.explanation import Explanation, make_reason, show_moment
from jobsvc.api.redis_view import RedisView, read_redis
from jobsvc.api.waiting import explain_waiting
from jobsvc.config import settings
from jobsvc.jobs import Situation
from jobsvc.jobs.serialize import show_time
from jobsvc.states import ENDED, WAITING, Outcome, Status


def explain(job_id: UUID, view: Callable[[], RedisView] = read_redis) -> Explanation:
    """Return why the job is where it is, and what happens next.

    Asks Redis, by `view`, only about a waiting job. Raises JobNotFound and StoreUnavailable.
    """
    situation = jobs.read_situation(job_id, settings().JOBSVC_QUEUES)
    redis = _serving(view(), situation.queue) if situation.status in WAITING else RedisView()
    return explain_situation(situation, redis)


def _serving(redis: RedisView, queue: str) -> RedisView:
    """Return the view with only the workers that live and serve this queue."""
    return replace(redis, workers=[one for one in redis.workers if queue in one.queues and not one.is_lost])


def explain_situation(job: Situation, redis: RedisView) -> Explanation:
    """Explain a job in any status; `redis`, as for `explain_waiting`, matters only if it waits."""
    if job.status in ENDED:
        return explain_ended(job)
    return explain_running(job) if job.status == Status.PROCESSING else explain_waiting(job, redis)


def explain_ended(job: Situation) -> Explanation:
    """Explain a job that has ended."""
    at = show_moment(job.finished_at)
    failed = f"The job failed at {at}"
    match job.status:
        case Status.COMPLETED:
            detail = f"The job completed at {at}, in attempt {job.attempts} of {job.max_attempts}."
        case Status.CANCELLED:
            detail = f"The job was cancelled, and ended at {at}."
        case _ if job.error_type == "Expired":
            detail = f"{failed}, because no attempt had started before it expired."
        case _ if job.last_outcome == Outcome.DISCARDED:
            detail = f"{failed}, because attempt {job.attempts} was discarded."
        case _:
            detail = f"{failed}: attempt {job.attempts} of {job.max_attempts} was the last one."
    reason = make_reason(
        "ended",
        detail,
        finishedAt=at,
        attempt=job.attempts,
        maxAttempts=job.max_attempts,
        outcome=Outcome.COMPLETED if job.status == Status.COMPLETED else job.last_outcome,
        errorType=job.error_type if job.status == Status.FAILED else None,
    )
    again = "" if job.status == Status.COMPLETED else f"; POST /jobs/{job.job_id}/retry runs it again"
    return {"status": job.status, "reasons": [reason], "next": f"Nothing more: the job has ended{again}."}


def explain_running(job: Situation) -> Explanation:
    """Explain a job that is PROCESSING."""
    assert job.started_at is not None
    timeout_at = show_moment(job.started_at + timedelta(seconds=job.timeout))
    is_lease_expired = job.lease_expires_at is not None and job.lease_expires_at < job.now
    detail = f"Attempt {job.attempts} of {job.max_attempts} has been running since {show_moment(job.started_at)}."
    following = f"The attempt ends by itself, or is stopped at its timeout, about {timeout_at}."
    if job.cancel_requested_at:
        detail += f" A cancel was requested at {show_moment(job.cancel_requested_at)}."
        following = "The attempt is stopped within 5 s; then the job is CANCELLED, unless the attempt completed before."
    if is_lease_expired:
        at = show_moment(job.lease_expires_at)
        detail += f" Its lease expired at {at}: the worker was lost, or can't reach Postgres."
        status = Status.RETRYING if job.attempts < job.max_attempts else Status.FAILED
        status = Status.CANCELLED if job.cancel_requested_at else status
        following = f"The next sweep ends the attempt as lost, and the job becomes {status}."
    reason = make_reason(
        "running",
        detail,
        worker=job.worker,
        attempt=job.attempts,
        maxAttempts=job.max_attempts,
        startedAt=show_moment(job.started_at),
        timeoutAt=timeout_at,
        leaseExpiresAt=show_moment(job.lease_expires_at),
        isLeaseExpired=is_lease_expired,
        cancelRequestedAt=show_time(job.cancel_requested_at),
    )
    return {"status": job.status, "reasons": [reason], "next": following}
