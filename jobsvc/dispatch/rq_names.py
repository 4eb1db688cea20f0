"""RQ's names of our queues: JOBSVC_NAMESPACE, a dot, and the public name.

All code that passes a queue name to RQ or Redis uses this module, so that other applications' queues are left alone.
"""

from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from jobsvc.config import settings


def to_rq(name: str) -> str:
    """Return RQ's name of the queue with the public name `name`."""
    return f"{settings().JOBSVC_NAMESPACE}.{name}"


def from_rq(rq_name: str) -> str | None:
    """Return the public name, or None for a queue outside our namespace."""
    namespace, dot, name = rq_name.partition(".")  # a namespace has no dot
    return name if dot and name and namespace == settings().JOBSVC_NAMESPACE else None


def ours_of(rq_names: Iterable[str]) -> list[str]:
    """Return the public names of the given queues that are ours, in order."""
    return [name for rq_name in rq_names if (name := from_rq(rq_name)) is not None]


def key(purpose: str) -> str:
    """Return the Redis key of this namespace for a purpose of our own; RQ uses no such key."""
    return f"rq:jobsvc:{settings().JOBSVC_NAMESPACE}:{purpose}"


def ids_in(texts: Iterable[str]) -> list[UUID]:
    """Return the entries of RQ's queues that may be ids of our jobs: UUIDs in canonical form."""
    found = []
    for text in texts:
        with suppress(ValueError):
            if str(id_ := UUID(text)) == text:
                found.append(id_)
    return found
