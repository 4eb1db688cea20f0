"""The workers registered in RQ."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from redis import Redis
from rq import Worker
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE
from rq.job import Job as RQJob
from rq.utils import parse_composite_key, utcparse

from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.rq_names import from_rq, ours_of

OURS_LIVE_SECONDS, OURS_BEAT_SECONDS = 90, 30
"""Longest time to live of one of our workers' keys in Redis, and longest time between its heartbeats, with a margin."""

MOST = 1000
"""Maximum number of workers returned."""

TYPES = "types"
"""Field of RQ's worker hash to which our workers write, at each heartbeat, the job types that they can run."""


@dataclass(frozen=True)
class WorkerState:
    """A live worker. `jobs`: ids of its running jobs.

    `types`: the job types that it can run; None if it doesn't publish them, like a stock worker.
    """

    name: str
    host: str | None
    pid: int | None
    state: str
    queues: list[str]
    jobs: list[str]
    last_heartbeat: datetime | None
    types: frozenset[str] | None = None
    expires_in: int = 0  # seconds until its key in Redis expires
    started_at: datetime | None = None

    @property
    def is_lost(self) -> bool:
        """True if this is one of our workers and it has missed several heartbeats."""
        return self.types is not None and self.expires_in <= OURS_LIVE_SECONDS - OURS_BEAT_SECONDS

    @property
    def is_idle_stock(self) -> bool:
        """True for a stock worker that waits for a job, False for one of ours of any version.

        An idle stock worker's key lives for 480 s after each heartbeat, or the last one is minutes ago; a busy one's
        for 90 s. Ours live for 90 s at most; those of version 0.1.0, which publish no types, beat every 5 s.
        """
        if self.types is not None:
            return False
        silent_seconds = (datetime.now(UTC) - self.last_heartbeat).total_seconds() if self.last_heartbeat else 0.0
        return self.expires_in > OURS_LIVE_SECONDS or silent_seconds > OURS_BEAT_SECONDS


def keys_of_namespace(connection: Redis) -> list[str]:
    """Return the sorted keys of the workers that serve a queue of this namespace, MOST at most. Raises RedisError."""
    keys = sorted(Worker.all_keys(connection))
    with connection.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hget(key, "queues")
        served = zip(keys, pipeline.execute(raise_on_error=False), strict=True)
    ours = (key for key, queues in served if isinstance(queues, bytes) and ours_of(queues.decode().split(",")))
    return list(islice(ours, MOST))


def queues_of(name: str, connection: Redis) -> list[str] | None:
    """Return the queues of this namespace that the worker serves; None if RQ doesn't know. Raises RedisError."""
    queues = connection.hget(f"{Worker.redis_worker_namespace_prefix}{name}", "queues")
    return ours_of(queues.decode().split(",")) or None if isinstance(queues, bytes) else None


def known() -> list[WorkerState]:
    """Return this namespace's workers by name. A crashed worker is listed until its key in Redis expires.

    Raises RedisError.
    """
    connection = rq_redis.connection()
    keys = keys_of_namespace(connection)
    names = [key.removeprefix(Worker.redis_worker_namespace_prefix) for key in keys]
    with connection.pipeline(transaction=False) as pipeline:
        for key, name in zip(keys, names, strict=True):
            pipeline.hgetall(key)
            pipeline.ttl(key)
            pipeline.smembers(WORKER_EXECUTIONS_KEY_TEMPLATE.format(name))
        answers = pipeline.execute()
    found = zip(names, answers[::3], answers[1::3], answers[2::3], strict=True)
    workers = [_worker(name, data, ttl, executions) for name, data, ttl, executions in found if data]
    return _without_others_jobs(workers, connection)


def _without_others_jobs(workers: list[WorkerState], connection: Redis) -> list[WorkerState]:
    """Remove jobs of queues outside the namespace from the workers' `jobs`."""
    job_ids = sorted({job_id for worker in workers for job_id in worker.jobs})
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hget(RQJob.key_for(job_id), "origin")
        origins = zip(job_ids, pipeline.execute(), strict=True)
    others = {job_id for job_id, origin in origins if origin and from_rq(origin.decode("utf-8", "replace")) is None}
    return [replace(one, jobs=[job_id for job_id in one.jobs if job_id not in others]) for one in workers]


def _worker(name: str, data: dict[bytes, bytes], ttl: int, executions: set[bytes]) -> WorkerState:
    text = {key.decode(): value.decode("utf-8", "replace") for key, value in data.items()}
    beat, birth = text.get("last_heartbeat"), text.get("birth")
    return WorkerState(
        name=name,
        host=text.get("hostname") or None,
        pid=int(text["pid"]) if text.get("pid") else None,
        state=text.get("state", "?"),
        queues=ours_of(text.get("queues", "").split(",")),
        jobs=sorted(parse_composite_key(execution.decode())[0] for execution in executions),
        last_heartbeat=utcparse(beat) if beat else None,
        started_at=utcparse(birth) if birth else None,
        types=frozenset(json.loads(text[TYPES])) if TYPES in text else None,
        expires_in=ttl,
    )
