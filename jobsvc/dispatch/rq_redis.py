"""The connection to Redis, whether it can be used, and RQ's queues there."""

from functools import lru_cache
from typing import Any

from redis import Redis, ResponseError, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

from jobsvc.config import settings
from jobsvc.dispatch import ownership
from jobsvc.dispatch.enqueue import SERIALIZER as SERIALIZER
from jobsvc.dispatch.rq_names import to_rq
from jobsvc.servers import sentinel


def connect(**options: Any) -> Redis:
    """Return a new client of REDIS_URL, through Sentinel where the URL says so."""
    return sentinel.connect(settings().REDIS_URL, **options)


@lru_cache(maxsize=1)
def connection() -> Redis:
    """A connection pool for whoever must not wait: it gives up within 2 s, and does not try again by itself."""
    return connect(socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0))


_PROBE = """
redis.call('SET', KEYS[1], '', 'XX')
redis.call('RPUSHX', KEYS[2], '')
return redis.call('HGET', KEYS[1], 'status')
"""
"""Needs what a dispatch needs: scripts, RQ's keys and writes. It writes nothing, since nobody makes these keys."""

_PROBE_KEYS = ("rq:job:jobsvc-probe", "rq:queue:jobsvc-probe")
"""In two slots of a Redis Cluster, so that each of its nodes refuses the probe."""

_CLUSTER_ERRORS = (exceptions.MovedError, exceptions.AskError, exceptions.ClusterCrossSlotError)


class ClusterRefused(ResponseError):
    """Redis Cluster, which has RQ's keys in slots of several nodes."""


def probe() -> None:
    """Raise RedisError unless Redis can be used: one that is full, read-only or too strict still answers a PING."""
    try:
        connection().eval(_PROBE, len(_PROBE_KEYS), *_PROBE_KEYS)
    except ResponseError as error:
        if isinstance(error, _CLUSTER_ERRORS) or str(error).startswith(("CLUSTERDOWN", "CROSSSLOT")):
            raise ClusterRefused("REDIS_URL: this is a node of a Redis Cluster, where RQ can't work") from error
        raise
    ownership.confirm(connection())


def is_met_by_probe(error: Exception) -> bool:
    """Return True if `probe` fails as well while what led to this error lasts."""
    passing = (
        exceptions.ConnectionError,
        exceptions.TimeoutError,
        exceptions.OutOfMemoryError,
        exceptions.ReadOnlyError,
        *_CLUSTER_ERRORS,
        ClusterRefused,
        ownership.NamespaceTaken,
    )
    return isinstance(error, passing) or str(error).startswith(("MISCONF", "CLUSTERDOWN", "BUSY", "NOREPLICAS"))


@lru_cache
def queue(name: str) -> Queue:
    """The RQ queue that holds the jobs of our queue `name`."""
    return Queue(to_rq(name), connection=connection(), serializer=SERIALIZER)
