"""Finds jobs that were dispatched to RQ and are no longer there."""

from uuid import UUID

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis
from jobsvc.jobs import Dispatch


def claim_missing(name: str, limit: int) -> list[Dispatch]:
    """Claim up to `limit` jobs of this queue that RQ must have lost. Raises RedisError and StoreUnavailable."""
    ids = rq_redis.queue(name).get_job_ids(0, 1)
    try:
        head = UUID(ids[0]) if ids else None
    except ValueError:
        return []  # another application's job; check ours when that one has left
    # RQ's scheduler may have queued a job two sweeps before we claimed it.
    grace = settings().JOBSVC_LEASE_SECONDS + 2 * settings().JOBSVC_SWEEP_SECONDS
    return jobs.claim_missing(name, head, grace, limit)
