"""The connection to Redis, its probe, and RQ's queues."""

from functools import lru_cache
from pathlib import Path
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
    """Return a new client of REDIS_URL, by Sentinel if the URL says so."""
    return sentinel.connect(settings().REDIS_URL, **options)


@lru_cache(maxsize=1)
def connection() -> Redis:
    """Return this process' client for calls that must not block: they fail within 2 s and are not retried."""
    return connect(socket_connect_timeout=1, socket_timeout=2, retry=Retry(NoBackoff(), 0))


_PROBE = Path(__file__).with_name("probe.lua").read_text()
"""Needs the same rights as a dispatch: scripts, RQ's keys and writes. Writes nothing, since these keys never exist."""

_PROBE_KEYS = ("rq:job:jobsvc-probe", "rq:queue:jobsvc-probe")
"""Two keys that don't exist, in two slots of a Redis Cluster, so that every node of one rejects the probe."""

_CLUSTER_ERRORS = (exceptions.MovedError, exceptions.AskError, exceptions.ClusterCrossSlotError)


class ClusterRefused(ResponseError):
    """REDIS_URL is a node of a Redis Cluster, which spreads RQ's keys over several nodes."""


def probe() -> None:
    """Raise RedisError unless jobs can be dispatched; a full, read-only or restricted Redis still answers PING."""
    try:
        connection().eval(_PROBE, len(_PROBE_KEYS), *_PROBE_KEYS)
    except ResponseError as error:
        if isinstance(error, _CLUSTER_ERRORS) or str(error).startswith(("CLUSTERDOWN", "CROSSSLOT")):
            raise ClusterRefused("REDIS_URL: this is a node of a Redis Cluster, where RQ can't work") from error
        raise
    ownership.confirm(connection())


def is_met_by_probe(error: Exception) -> bool:
    """Return True if `probe` fails as long as the cause of this error lasts."""
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
    """Return the RQ queue of our queue `name`."""
    return Queue(to_rq(name), connection=connection(), serializer=SERIALIZER)
