"""Removes ended jobs from RQ: all but the newest, and those deleted from Postgres."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rq.executions import ExecutionRegistry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, FinishedJobRegistry
from rq.results import Result

from jobsvc.config import settings
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.enqueue import CALL_START, is_our_call

KEPT = 1000
"""Number of newest jobs kept in each of RQ's registries of ended jobs, per queue."""

RESULTS: str = Result.get_key("")  # type: ignore[no-untyped-call]

REGISTRIES = {
    FinishedJobRegistry: [JobStatus.FINISHED],
    FailedJobRegistry: [JobStatus.FAILED, JobStatus.STOPPED],
    CanceledJobRegistry: [JobStatus.CANCELED],
}
"""RQ's registries of ended jobs, with the statuses of the jobs that belong there."""

# A script, since a job must not be queued again between its check and its removal (race). If a job's status
# has changed, only its entry is removed. A job that also has a running or scheduled attempt is left.
TRIM = """
local registry, scheduled = KEYS[1], KEYS[2]
local keep, limit, job, executions, results = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local call, statuses, known = ARGV[6], tonumber(ARGV[7]), {}
local surplus = redis.call('ZCARD', registry) - keep
if surplus <= 0 then return {0} end
local ended = {}
for i = 8, 7 + statuses do ended[ARGV[i]] = true end
for i = 8 + statuses, #ARGV do known[ARGV[i]] = true end
local gone, keys, asked = {}, {}, {0}
for _, id in ipairs(redis.call('ZRANGE', registry, 0, math.min(surplus, limit) - 1)) do
    local status, data = unpack(redis.call('HMGET', job .. id, 'status', 'data'))
    local belongs = ended[status]
    if data and not known[id] and string.find(data, call, 1, true) ~= 8 then
        if #data < 1000 then asked[#asked + 1], asked[#asked + 2] = id, data end
    elseif not belongs
        or (redis.call('EXISTS', executions .. id) == 0 and not redis.call('ZSCORE', scheduled, id)) then
        gone[#gone + 1] = id
        if belongs then keys[#keys + 1], keys[#keys + 2] = job .. id, results .. id end
    end
end
if #keys > 0 then redis.call('UNLINK', unpack(keys)) end
if #gone > 0 then asked[1] = redis.call('ZREM', registry, unpack(gone)) end
return asked
"""
"""Returns the number of removed entries, then id and data of each job whose owner is unclear: RQ compresses some data.

The last arguments are ids of such jobs that are known to be ours.
"""


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
        ours = [job_id for job_id, data in zip(asked[::2], asked[1::2], strict=True) if is_our_call(data)]
        counts.append(int(count) + (int(script(keys, [*arguments, *ours])[0]) if ours else 0))
    return counts


def forget(job_ids: Sequence[UUID]) -> None:
    """Remove these jobs, which were pruned from Postgres, from RQ."""
    ids = [str(job_id) for job_id in job_ids]
    with rq_redis.connection().pipeline(transaction=False) as pipeline:
        pipeline.unlink(*(key for one in ids for key in (RQJob.key_for(one), RESULTS + one)))
        for queue in map(rq_redis.queue, settings().JOBSVC_QUEUES):
            for registry in REGISTRIES:
                pipeline.zrem(registry(queue=queue).key, *ids)
        pipeline.execute()
