"""Removes jobs from RQ: cancelled and deleted ones, and all but the newest ended ones."""

import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from rq.executions import ExecutionRegistry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry
from rq.results import Result

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.enqueue import CALL_START, MAX_LREM

KEPT = 1000
"""Number of newest jobs kept in each of RQ's registries of ended jobs, per queue."""

RESULTS: str = Result.get_key("")  # type: ignore[no-untyped-call]

REGISTRIES = {
    FinishedJobRegistry: [JobStatus.FINISHED],
    FailedJobRegistry: [JobStatus.FAILED, JobStatus.STOPPED],
    CanceledJobRegistry: [JobStatus.CANCELED],
}
"""RQ's registries of ended jobs, with the statuses of the jobs that belong there."""

TRIM = Path(__file__).with_name("trim_registry.lua").read_text()
"""Returns the number of removed entries, then id and data of each job whose owner is unclear: RQ compresses some data.

The last arguments are ids of such jobs that are known to be ours.
"""


def withdraw(job_ids: Sequence[UUID]) -> list[UUID]:
    """Remove these ended or deleted jobs from RQ: for its dashboard, and to save workers a check.

    Unfinished jobs are left. Returns the ids of jobs that RQ is still running, whose worker would write part of them
    again. Raises StoreUnavailable and RedisError.
    """
    unfinished = jobs.unfinished(job_ids)
    ended = [str(job_id) for job_id in job_ids if job_id not in unfinished]
    running = []
    with rq_redis.connection().pipeline() as pipeline:
        for rq_job in filter(None, RQJob.fetch_many(ended, rq_redis.connection(), rq_redis.SERIALIZER)):
            if rq_job.get_status(refresh=False) == JobStatus.STARTED:
                running.append(UUID(rq_job.id))
            else:
                rq_job.delete(pipeline, remove_from_queue=len(ended) <= MAX_LREM)
        pipeline.execute()
    return running


def trim(limit: int, keep: int = KEPT) -> list[int]:
    """Remove our ended jobs from RQ but for the newest `keep`, up to `limit` per registry; returns the counts.

    RQ itself removes them only after their TTL, so that a high job rate would fill Redis. Jobs of other applications
    are left alone, even in our queues.
    """
    script = rq_redis.connection().register_script(TRIM)
    prefixes = [RQJob.key_for(""), ExecutionRegistry.key_template.format(""), RESULTS, CALL_START]
    calls: list[tuple[list[str], list[Any]]] = []
    for queue in map(rq_redis.queue, settings().JOBSVC_QUEUES):
        scheduled = queue.scheduled_job_registry.key
        for registry, statuses in REGISTRIES.items():
            calls.append(([registry(queue=queue).key, scheduled], [keep, limit, *prefixes, len(statuses), *statuses]))
    with rq_redis.connection().pipeline(transaction=False) as pipeline:
        for keys, arguments in calls:
            script(keys, arguments, client=pipeline)
        answers = pipeline.execute()
    counts = []
    for (keys, arguments), (count, *asked) in zip(calls, answers, strict=True):
        ours = [job_id for job_id, data in zip(asked[::2], asked[1::2], strict=True) if _is_our_call(data)]
        counts.append(int(count) + (int(script(keys, [*arguments, *ours])[0]) if ours else 0))
    return counts


def remove_pruned(job_ids: Sequence[UUID]) -> None:
    """Remove jobs from RQ that were deleted from Postgres. Raises RedisError."""
    ids = [str(job_id) for job_id in job_ids]
    with rq_redis.connection().pipeline(transaction=False) as pipeline:
        pipeline.unlink(*(key for one in ids for key in (RQJob.key_for(one), RESULTS + one)))
        for queue in map(rq_redis.queue, settings().JOBSVC_QUEUES):
            for registry in REGISTRIES:
                pipeline.zrem(registry(queue=queue).key, *ids)
        pipeline.execute()


def _is_our_call(data: bytes) -> bool:
    """Return True if `data`, the compressed field of an RQ job, is one of our jobs' calls."""
    with suppress(zlib.error):  # jobs of other applications may have any size and content
        return zlib.decompressobj().decompress(data, len(CALL_START)) == CALL_START.encode()
    return False
