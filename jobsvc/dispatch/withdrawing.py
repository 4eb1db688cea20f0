"""Removes ended and deleted jobs from RQ: for its dashboard, and to save workers a check."""

from collections.abc import Sequence
from uuid import UUID

from rq.job import Job as RQJob
from rq.job import JobStatus

from jobsvc import jobs
from jobsvc.dispatch import rq_redis

FEW = 10
"""Largest batch for which ids are also removed from RQ's list (`LREM`, O(length) each). In a larger one the list
entries stay; RQ skips entries without a job."""


def withdraw(job_ids: Sequence[UUID]) -> list[UUID]:
    """Remove these jobs from RQ, except unfinished ones; returns the ids of jobs that RQ is still running.

    Raises StoreUnavailable and RedisError.
    """
    wanted_again = jobs.unfinished(job_ids)
    gone = [str(job_id) for job_id in job_ids if job_id not in wanted_again]
    found = RQJob.fetch_many(gone, rq_redis.connection(), rq_redis.SERIALIZER)
    busy = []
    with rq_redis.connection().pipeline() as pipeline:
        for rq_job in filter(None, found):
            if rq_job.get_status(refresh=False) == JobStatus.STARTED:
                busy.append(UUID(rq_job.id))  # its worker would write part of it again
            else:
                rq_job.delete(pipeline, remove_from_queue=len(gone) <= FEW)
        pipeline.execute()
    return busy
