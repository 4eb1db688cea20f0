"""RQ's names of our queues: JOBSVC_NAMESPACE, a dot, and the name that users know.

All that names a queue towards RQ or Redis goes through here, so that other applications there are left alone.
"""

from collections.abc import Iterable
from contextlib import suppress
from uuid import UUID

from jobsvc.config import settings


def to_rq(name: str) -> str:
    """Return RQ's name of the queue that users know as `name`."""
    return f"{settings().JOBSVC_NAMESPACE}.{name}"


def from_rq(rq_name: str) -> str | None:
    """Return the name that users know, or None for a queue outside our namespace."""
    namespace, dot, name = rq_name.partition(".")  # a namespace has no dot
    return name if dot and name and namespace == settings().JOBSVC_NAMESPACE else None


def within(rq_name: str) -> str:
    """Return RQ's name of one of our queues, given as it is now, or without the namespace, as before version 0.2."""
    return to_rq(rq_name) if from_rq(rq_name) is None else rq_name


def ours_of(rq_names: Iterable[str]) -> list[str]:
    """Return the names that users know of those of these queues that are ours, in their order."""
    return [name for rq_name in rq_names if (name := from_rq(rq_name)) is not None]


def key(purpose: str) -> str:
    """Return the key in Redis under which this namespace keeps something besides RQ's own keys."""
    return f"rq:jobsvc:{settings().JOBSVC_NAMESPACE}:{purpose}"


def ids_in(texts: Iterable[str]) -> list[UUID]:
    """Those of these texts, as they come from RQ's queues, that may be ids of our jobs."""
    found = []
    for text in texts:
        with suppress(ValueError):
            if str(id_ := UUID(text)) == text:
                found.append(id_)
    return found
