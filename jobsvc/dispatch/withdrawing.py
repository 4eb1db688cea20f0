"""Jobs that have ended or are gone, taken out of RQ too: for its dashboard, and to spare its workers a look."""

from collections.abc import Sequence
from uuid import UUID

from rq.job import Job as RQJob
from rq.job import JobStatus

from jobsvc import jobs
from jobsvc.dispatch import rq_redis

FEW = 10
"""So many jobs are looked for in RQ's queue, each from its head to its end. Of more, only what can be found at once
is removed: RQ passes by an entry in its queue that has no job."""


def withdraw(job_ids: Sequence[UUID]) -> list[UUID]:
    """Remove these jobs from RQ, but for those that are to run after all; returns those that RQ is still busy with.

    Raises StoreUnavailable and RedisError.
    """
    wanted_again = jobs.unfinished(job_ids)
    gone = [str(job_id) for job_id in job_ids if job_id not in wanted_again]
    found = RQJob.fetch_many(gone, rq_redis.connection(), rq_redis.SERIALIZER)
    busy = []
    with rq_redis.connection().pipeline() as pipeline:
        for rq_job in filter(None, found):
            if rq_job.get_status(refresh=False) == JobStatus.STARTED:
                busy.append(UUID(rq_job.id))  # its worker would write half of it anew
            else:
                rq_job.delete(pipeline, remove_from_queue=len(gone) <= FEW)
        pipeline.execute()
    return busy
