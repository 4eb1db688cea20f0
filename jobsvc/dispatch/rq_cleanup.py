"""What ended jobs leave behind: in RQ the newest few, in Postgres what is younger than JOBSVC_RETENTION_DAYS."""

import time
from collections.abc import Sequence
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
from jobsvc.dispatch.enqueue import CALL_START, is_our_call

KEPT = 1000
"""How many jobs RQ goes on showing in each registry of ended ones, of each queue."""

PRUNE_SECONDS = 60.0
"""Between two looks for jobs to delete from Postgres."""

RESULTS: str = Result.get_key("")  # type: ignore[no-untyped-call]

REGISTRIES = {
    FinishedJobRegistry: [JobStatus.FINISHED],
    FailedJobRegistry: [JobStatus.FAILED, JobStatus.STOPPED],
    CanceledJobRegistry: [JobStatus.CANCELED],
}
"""The registries of ended jobs, and the statuses of the jobs that belong there."""

# A script, so that nobody queues a job again between the look at it and its end. An entry whose job has
# moved on goes alone. A job that a second dispatch ended while an attempt runs, or is planned, is left.
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
"""Returns how many are gone; then id and call of each job of which it can't tell whose it is: RQ compresses some.

The last arguments are ids of such jobs that are ours.
"""


def trim(limit: int, keep: int = KEPT) -> list[int]:
    """Remove from RQ our jobs that ended before the newest `keep`, up to `limit` a registry; returns how many of each.

    RQ forgets them by itself only after a time, so that their number would be the higher the faster they run. Jobs of
    others are left alone, in our queues too.
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
    """Remove from RQ what it holds of these jobs, which have ended and are no longer in Postgres."""
    ids = [str(job_id) for job_id in job_ids]
    with rq_redis.connection().pipeline(transaction=False) as pipeline:
        pipeline.unlink(*(key for one in ids for key in (RQJob.key_for(one), RESULTS + one)))
        for queue in map(rq_redis.queue, settings().JOBSVC_QUEUES):
            for registry in REGISTRIES:
                pipeline.zrem(registry(queue=queue).key, *ids)
        pipeline.execute()


class Retention:
    """This process' walk over the old jobs in Postgres. Any number of processes may walk at once."""

    def __init__(self) -> None:
        self._reached = jobs.LOWEST
        self._next = 0.0

    def step(self, limit: int) -> list[UUID]:
        """Delete up to `limit` old jobs, if it is time to; returns them, for RQ to `forget`.

        While there are some the next step follows at once, else in a minute, from where this one
        stopped. So jobs that wait for a year cost one short look a minute, however many there are.
        """
        days = settings().JOBSVC_RETENTION_DAYS
        if not days or time.monotonic() < self._next:
            return []
        pruned = jobs.prune(days * 86400, limit, self._reached)
        self._reached = pruned.reached
        if not pruned.job_ids or pruned.reached == jobs.LOWEST:
            self._next = time.monotonic() + PRUNE_SECONDS
        return pruned.job_ids
