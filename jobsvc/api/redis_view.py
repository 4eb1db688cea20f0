"""What Redis shows of this service: its workers, or why it can't be used."""

from collections.abc import Sequence
from dataclasses import dataclass

from redis import RedisError
from rq.suspension import is_suspended

from jobsvc.api.responses import RedisState
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis, rq_workers
from jobsvc.dispatch.ownership import NamespaceTaken
from jobsvc.dispatch.rq_workers import WorkerState
from jobsvc.reuse import reused

CHECK_SECONDS = 1.0
"""Seconds for which the view of Redis is used again: without an answer a check takes up to 2 s."""


@dataclass(frozen=True)
class RedisView:
    """The workers, also lost ones; none if Redis can't be used, which is then the `problem`, a sentence.

    state: as /readyz shows it.
    is_suspended: True while `rq suspend` keeps all workers from taking jobs.
    """

    workers: Sequence[WorkerState] = ()
    problem: str | None = None
    state: RedisState = "up"
    is_suspended: bool = False


def read_redis() -> RedisView:
    """Return what Redis shows now; takes up to 2 s if it doesn't answer."""
    try:
        rq_redis.probe()
        return RedisView(rq_workers.known(), is_suspended=bool(is_suspended(rq_redis.connection())))
    except NamespaceTaken:
        name = settings().JOBSVC_NAMESPACE
        problem = f"The namespace {name} in Redis belongs to another database, so no job is dispatched."
        return RedisView(problem=problem, state="taken")
    except RedisError:
        # The error's text may contain the address of the server.
        problem = "Redis can't be used, so no job is dispatched. New jobs are still accepted."
        return RedisView(problem=problem, state="down")


recent_redis = reused(read_redis, lambda _: CHECK_SECONDS)
"""Return what Redis showed at most CHECK_SECONDS ago."""
