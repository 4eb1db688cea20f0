"""Moves RQ jobs of version 0.1.0, whose queue names had no namespace, to queues with the namespace.

Processes of that version may still run, and other applications may use the same names. So each sweep repeats this,
and only ids of jobs in our Postgres are moved. A job dispatched by both versions starts once.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.enqueue import push
from jobsvc.dispatch.rq_names import from_rq, ids_in, to_rq
from jobsvc.states import ENDED

AT_ONCE = 1000
"""Maximum number of entries of each list or registry read in one step."""

OUR_UUID_VERSION = 7
"""UUID version of our job ids. RQ's own ids have version 4 and are skipped."""

ENDED_REGISTRIES = (FailedJobRegistry, FinishedJobRegistry, CanceledJobRegistry)

_MOVE = Path(__file__).with_name("move_ended.lua").read_text()
"""Moves jobs from one registry to another. ARGV: prefix of job keys, new queue, then ids and scores in turn."""


class OldNames:
    """This process' scan of the old queues and registries. Any number of processes may scan at once."""

    def __init__(self) -> None:
        self._reached: dict[str, int] = {}

    def step(self) -> int:
        """Move the entries found in one step; returns how many. Raises RedisError and StoreUnavailable."""
        return sum(map(self._move, [name for name in settings().JOBSVC_QUEUES if from_rq(name) is None]))

    def _move(self, name: str) -> int:
        connection = rq_redis.connection()
        queue = Queue(name, connection=connection)
        ended = [kind.key_template.format(name) for kind in ENDED_REGISTRIES]
        scheduled, running = (kind.key_template.format(name) for kind in (ScheduledJobRegistry, StartedJobRegistry))
        lists, sets = [queue.key, queue.intermediate_queue_key], [scheduled, *ended]
        if not connection.exists(*lists, *sets, running):
            return 0
        with connection.pipeline(transaction=False) as pipeline:
            for key in (*lists, *sets):
                first = self._reached.get(key, 0)
                (pipeline.lrange if key in lists else pipeline.zrange)(key, first, first + AT_ONCE - 1)
            # Running jobs stay there until they end; an entry past its expiry has lost its worker.
            pipeline.zrange(running, "-inf", int(time.time()), byscore=True, offset=0, num=AT_ONCE)
            found: list[list[str]] = [[one.decode("utf-8", "replace") for one in some] for some in pipeline.execute()]
        entries = dict(zip([*lists, *sets, running], found, strict=True))
        statuses, dispatches = jobs.claim_known(
            _ours(one.partition(":")[0] for some in entries.values() for one in some)
        )
        push(dispatches, connection)
        moved = 0
        for key, some in entries.items():
            known = [one for one in some if one.partition(":")[0] in statuses]
            moved += len(known)
            if key != running:
                self._reached[key] = self._reached.get(key, 0) + len(some) - len(known) if len(some) == AT_ONCE else 0
            if known:
                with connection.pipeline(transaction=False) as pipeline:
                    if key in lists:
                        for one in known:
                            pipeline.lrem(key, 1, one)
                    elif key not in ended:
                        pipeline.zrem(key, *known)
                    pipeline.execute()
                if key in ended:
                    _move_ended(connection, key, name, [one for one in known if statuses[one] in ENDED])
                    connection.zrem(key, *known)
        return moved


def _move_ended(connection: Redis, key: str, name: str, job_ids: list[str]) -> None:
    """Move these jobs to the same registry of our queue."""
    scores = connection.zmscore(key, job_ids) if job_ids else []
    pairs = [(job_id, score) for job_id, score in zip(job_ids, scores, strict=True) if score is not None]
    if pairs:
        new_key = key.removesuffix(name) + to_rq(name)
        flat = [value for pair in pairs for value in pair]
        connection.eval(_MOVE, 2, key, new_key, RQJob.key_for(""), to_rq(name), *flat)


def _ours(texts: Iterable[str]) -> list[UUID]:
    return [one for one in ids_in(set(texts)) if one.version == OUR_UUID_VERSION]
