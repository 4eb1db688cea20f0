"""Enqueues and schedules jobs in RQ."""

import json
import math
import struct
import zlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, groupby
from typing import Any
from uuid import UUID

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from jobsvc.dispatch.rq_names import to_rq
from jobsvc.jobs import Dispatch
from jobsvc.processes.timetable import GRACE_SECONDS

# JSON instead of RQ's default pickle, with which anyone who can write to Redis can run code in a worker.
SERIALIZER = JSONSerializer

RUN = "jobsvc.execution.run"
"""Name of the only function that RQ calls."""

RESULT_TTL = 500
"""Seconds for which RQ keeps a job that succeeded; Postgres keeps it longer."""

FAILURE_TTL = 86400
"""Seconds for which RQ keeps a job that failed; Postgres keeps it longer."""


AT_ONCE = 50
"""Maximum number of jobs written by one script call; a longer one would block Redis' other clients."""

_WRITE = """
local fields = {'data', false, unpack(ARGV, #KEYS + 1)}
for i, key in ipairs(KEYS) do
    fields[2] = ARGV[i]
    redis.call('HSET', key, unpack(fields))
end
"""
"""Writes `data` for each key, and fields common to all keys, which are sent only once."""


def push(batch: Sequence[Dispatch], connection: Redis) -> None:
    """Enqueue the due jobs and schedule the others, in one round trip.

    Not a transaction, which would block Redis: a job's hash is written before its id is queued. After an error
    some jobs may be queued; enqueueing them again is harmless. Raises RedisError.
    """
    with connection.pipeline(transaction=False) as pipeline:
        for name, group in groupby(sorted(batch, key=lambda one: one.queue), key=lambda one: one.queue):
            queue = _queue(name, connection)
            due = []
            for one in group:
                if one.wait > 0:
                    # RQ truncates to whole seconds; rounded up, the job doesn't start early.
                    whole_second = datetime.fromtimestamp(math.ceil(one.due_at.timestamp()), UTC)
                    job = queue.create_job(**_call(one.job_id), **_plan(one.type, one.timeout, one.retry_intervals))
                    queue.schedule_job(job, whole_second, pipeline=pipeline)
                else:
                    due.append(one)
            if due:
                _enqueue(name, queue, due, pipeline)
        pipeline.execute()


def not_queued(batch: Sequence[Dispatch], connection: Redis) -> list[Dispatch]:
    """Filter out jobs that RQ has already queued by itself (its scheduler, or an immediate retry)."""
    with connection.pipeline(transaction=False) as pipeline:
        for one in batch:
            pipeline.hget(RQJob.key_for(str(one.job_id)), "status")
        queued = JobStatus.QUEUED.value.encode()
        return [one for one, status in zip(batch, pipeline.execute(), strict=True) if status != queued]


def _enqueue(name: str, queue: Queue, due: Sequence[Dispatch], pipeline: Pipeline) -> None:
    """Do the same as RQ's enqueue_many, but faster: fields common to several jobs are built once."""
    ids = [str(one.job_id) for one in due]
    # Remove it from the scheduled jobs, and from the failed ones if it was retried by hand.
    for registry in _registries(name, queue.connection):
        pipeline.zrem(registry, *ids)
    alike: dict[tuple[str, float, tuple[float, ...]], list[str]] = defaultdict(list)
    for job_id, one in zip(ids, due, strict=True):
        alike[one.type, one.timeout, tuple(one.retry_intervals)].append(job_id)
    time = utcformat(now())
    for plan, group in alike.items():
        common = ("created_at", time, "enqueued_at", time, *_common(name, queue.connection, *plan))
        for at in range(0, len(group), AT_ONCE):
            some = group[at : at + AT_ONCE]
            keys = [RQJob.key_for(job_id) for job_id in some]
            pipeline.eval(_WRITE, len(some), *keys, *map(_data, some), *common)
    pipeline.sadd(Queue.redis_queues_keys, queue.key)
    pipeline.rpush(queue.key, *ids)


@lru_cache
def _queue(name: str, connection: Redis) -> Queue:
    return Queue(to_rq(name), connection=connection, serializer=SERIALIZER)


@lru_cache
def _registries(name: str, connection: Redis) -> tuple[str, str]:
    queue = _queue(name, connection)
    return queue.scheduled_job_registry.key, queue.failed_job_registry.key


@lru_cache(maxsize=1000)
def _common(
    queue: str, connection: Redis, type_: str, timeout: float, retry_intervals: tuple[float, ...]
) -> tuple[Any, ...]:
    """Return the fields of a queued job as RQ writes them, without call and times: alternating names and values."""
    job = _queue(queue, connection).create_job(
        **_call(UUID(int=0)), **_plan(type_, timeout, retry_intervals), status=JobStatus.QUEUED
    )
    fields = {name: value for name, value in job.to_dict().items() if name not in ("created_at", "data")}
    return tuple(chain.from_iterable(fields.items()))


# RQ's `data` of a call, in zlib's format (RFC 1950) around one uncompressed block (RFC 1951 §3.2.4). Calling zlib
# would take longer than all the rest, and release the GIL twice for each job.
_CALL = json.dumps((RUN, None, (str(UUID(int=0)),), {})).encode()
_STORED = b"\x78\x01\x01" + struct.pack("<HH", len(_CALL), len(_CALL) ^ 0xFFFF)
CALL_START, _AFTER_ID = _CALL.split(str(UUID(int=0)).encode())


def _data(job_id: str) -> bytes:
    call = CALL_START + job_id.encode() + _AFTER_ID
    return _STORED + call + zlib.adler32(call).to_bytes(4)


def is_our_call(data: bytes) -> bool:
    """Return True if `data`, the field of an RQ job, is a call of `run`."""
    try:
        call = json.loads(zlib.decompressobj().decompress(data, 1000))  # jobs of other applications may have any size
    except (zlib.error, ValueError):
        return False
    return isinstance(call, list) and call[:1] == [RUN]


def _call(job_id: UUID) -> dict[str, Any]:
    return {"func": RUN, "args": (str(job_id),), "job_id": str(job_id)}


def _plan(type_: str, timeout: float, retry_intervals: Sequence[float]) -> dict[str, Any]:
    """Return RQ's options for a job: timeout, retries, and how long RQ keeps it."""
    retries = [math.ceil(interval) for interval in retry_intervals]  # RQ counts whole seconds
    return {
        "description": type_,
        # The attempt enforces its own timeout; RQ's is for a process that can't.
        "timeout": math.ceil(timeout + GRACE_SECONDS),
        # One value for each retry: RQ repeats the first of a list that is too short.
        "retry": Retry(max=len(retries), interval=retries) if retries else None,
        "result_ttl": RESULT_TTL,
        "failure_ttl": FAILURE_TTL,
    }
