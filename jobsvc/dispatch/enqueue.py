"""Enqueues and schedules jobs in RQ."""

import contextlib
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any
from uuid import UUID

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from jobsvc import handlers, jobs
from jobsvc.config import settings
from jobsvc.dispatch.rq_names import to_rq
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import Dispatch, EntryChange, JobTransition
from jobsvc.processes.timetable import GRACE_SECONDS

logger = logging.getLogger("jobsvc.worker")

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

MAX_LREM = 10
"""Largest batch for which ids are also removed from RQ's list; LREM is O(length) each. Workers skip ids left there."""
MAX_RELEASED = 1000
"""Maximum number of released jobs that a worker dispatches at once; a relay dispatches the others."""

_WRITE = Path(__file__).with_name("write_jobs.lua").read_text()
"""Writes `data` for each key, and fields common to all keys, which are sent only once."""

CALL_START = f'["{RUN}", null, ['
"""Start of RQ's `data` of our jobs as `push` writes it: JSON that is not compressed, which RQ accepts.

RQ itself compresses `data`, when it saves a job again. zlib would take longer than all the rest of a dispatch, and
release the GIL twice for each job.
"""


def push(batch: Sequence[Dispatch], connection: Redis) -> None:
    """Enqueue the due jobs and schedule the others, in one round trip.

    Not a transaction, which would block Redis: a job's hash is written before its id is queued. After an error
    some jobs may be queued; enqueueing them again is harmless. Raises RedisError.
    """
    if any(one.change for one in batch):
        batch = _change_entries(batch, connection)
    with connection.pipeline(transaction=False) as pipeline:
        for name, group in groupby(sorted(batch, key=lambda one: one.queue), key=lambda one: one.queue):
            queue = _queue(name, connection)
            scheduled, failed = _registries(name, connection)
            due: list[Dispatch] = []
            later: list[Dispatch] = []
            for one in group:
                (later if one.wait > 0 else due).append(one)
            pipeline.sadd(Queue.redis_queues_keys, queue.key)
            if due:
                ids = [one.id for one in due]
                pipeline.zrem(scheduled, *ids)
                pipeline.zrem(failed, *ids)  # a job retried by hand
                _write(due, JobStatus.QUEUED, queue, pipeline)
                pipeline.rpush(queue.key, *ids)
            if later:
                _write(later, JobStatus.SCHEDULED, queue, pipeline)
                # RQ counts whole seconds; rounded up, the job doesn't start early.
                pipeline.zadd(scheduled, {one.id: math.ceil(one.due_at.timestamp()) for one in later})
        pipeline.execute()


def not_queued(batch: Sequence[Dispatch], connection: Redis) -> list[Dispatch]:
    """Filter out jobs that RQ has already queued in their queue by itself (its scheduler, or an immediate retry)."""
    with connection.pipeline(transaction=False) as pipeline:
        for one in batch:
            pipeline.hmget(RQJob.key_for(one.id), "status", "origin")
        queued = JobStatus.QUEUED.value.encode()
        found = zip(batch, pipeline.execute(), strict=True)
        return [one for one, shown in found if shown != [queued, to_rq(one.queue).encode()]]


def _change_entries(batch: Sequence[Dispatch], connection: Redis) -> list[Dispatch]:
    """Update or remove RQ's entries of changed jobs; returns the dispatches that are to be written anew."""
    replaced = [one for one in batch if one.change is EntryChange.REPLACE]
    with connection.pipeline(transaction=False) as pipeline:
        for one in replaced:
            pipeline.hmget(RQJob.key_for(one.id), "status", "origin")
        for one, (status, origin) in zip(replaced, pipeline.execute(), strict=True):
            for name in settings().JOBSVC_QUEUES:
                pipeline.zrem(_registries(name, connection)[0], one.id)
            if status == JobStatus.QUEUED.value.encode() and origin and len(replaced) <= MAX_LREM:
                pipeline.lrem(Queue.redis_queue_namespace_prefix + origin.decode(), 0, one.id)
        pipeline.execute()
    for one in batch:
        if one.change is EntryChange.UPDATE:
            connection.transaction(partial(_update, one), RQJob.key_for(one.id))
    return [one for one in batch if one.change is not EntryChange.UPDATE]


def _update(dispatch: Dispatch, pipeline: Pipeline) -> None:
    """Write timeout and retries to the job's hash, unless RQ has none."""
    key = RQJob.key_for(dispatch.id)
    exists = pipeline.exists(key)
    options = _plan(dispatch.type, dispatch.timeout, dispatch.retry_intervals)
    left = options["retry"].intervals if options["retry"] else []
    pipeline.multi()
    if exists:
        pipeline.hset(key, "timeout", options["timeout"])
        pipeline.hset(key, "retries_left", len(left))
        pipeline.hset(key, "retry_intervals", json.dumps(left))


_logged_types: set[str] = set()


def handle_refused(job_ids: Sequence[UUID], connection: Redis) -> set[UUID]:
    """Return which of these refused jobs wait for a handler; dispatch others of their concurrency keys.

    Logs each type without a handler once. Returns an empty set while Postgres is unavailable.
    """
    refused: list[jobs.Refused] = []
    with contextlib.suppress(StoreUnavailable):
        refused = jobs.find_refused(job_ids)
    for type_ in {one.type for one in refused} - _logged_types - handlers.types():  # else refused for want of a thread
        _logged_types.add(type_)
        logger.warning("there is no handler of the type %s here; its jobs wait for a worker that has one", type_)
    if keys := {one.concurrency_key for one in refused if one.concurrency_key}:
        dispatch_withheld(keys, connection)
    return {one.job_id for one in refused}


def dispatch_withheld(keys: set[str], connection: Redis) -> None:
    """Dispatch jobs withheld by these concurrency keys, now that a slot is free."""
    claim_and_push(lambda: jobs.claim_next(keys, jobs.MAX_CONCURRENCY_LIMIT), connection)


def dispatch_following(transitions: Sequence[JobTransition], connection: Redis) -> None:
    """Dispatch jobs that may start since these attempts ended: of the same keys, or released by their jobs' ends."""
    if keys := {one.concurrency_key for one in transitions if one.concurrency_key}:
        dispatch_withheld(keys, connection)
    if any(one.has_released for one in transitions):
        claim_and_push(lambda: not_queued(jobs.claim_due(MAX_RELEASED), connection), connection)


def claim_and_push(claim: Callable[[], list[Dispatch]], connection: Redis) -> None:
    """Push the jobs that `claim` returns to RQ. Errors are logged; a sweep dispatches the jobs later."""
    claimed: list[Dispatch] = []
    try:
        claimed = claim()
        push(claimed, connection)
    except Exception as error:
        # The finished attempt must not be affected by the dispatch of other jobs.
        logger.warning("dispatch: failed, the jobs wait for a sweep: %s", error)
        with contextlib.suppress(StoreUnavailable):
            if claimed:
                jobs.release(one.job_id for one in claimed)


def _write(batch: Sequence[Dispatch], status: JobStatus, queue: Queue, pipeline: Pipeline) -> None:
    """Write what RQ's enqueue_many or schedule_job would write, but faster: common fields are built once."""
    alike: dict[tuple[str, float, tuple[float, ...]], list[str]] = defaultdict(list)
    for one in batch:
        alike[one.type, one.timeout, tuple(one.retry_intervals)].append(one.id)
    time = utcformat(now())
    times = ("created_at", time, "enqueued_at", time) if status == JobStatus.QUEUED else ("created_at", time)
    for plan, group in alike.items():
        common = (*times, *_common(queue, status, *plan))
        for at in range(0, len(group), AT_ONCE):
            some = group[at : at + AT_ONCE]
            keys = [RQJob.key_for(job_id) for job_id in some]
            calls = [f'{CALL_START}"{job_id}"], {{}}]' for job_id in some]
            pipeline.eval(_WRITE, len(some), *keys, *calls, *common)


@lru_cache
def _queue(name: str, connection: Redis) -> Queue:
    return Queue(to_rq(name), connection=connection, serializer=SERIALIZER)


@lru_cache
def _registries(name: str, connection: Redis) -> tuple[str, str]:
    queue = _queue(name, connection)
    return queue.scheduled_job_registry.key, queue.failed_job_registry.key


@lru_cache(maxsize=1000)
def _common(
    queue: Queue, status: JobStatus, type_: str, timeout: float, retry_intervals: tuple[float, ...]
) -> tuple[Any, ...]:
    """Return the fields of a job as RQ writes them, without call and times: alternating names and values."""
    job = queue.create_job(RUN, **_plan(type_, timeout, retry_intervals), status=status)
    fields = {name: value for name, value in job.to_dict().items() if name not in ("created_at", "data")}
    return tuple(chain.from_iterable(fields.items()))


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
