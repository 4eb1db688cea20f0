"""The owner of our namespace in Redis: the database whose jobs are in its queues.

`migrate` gives each database an id. The first deployment to use a namespace in a Redis writes its id there. A second
deployment with another database would take jobs from these queues that its Postgres doesn't have.
"""

import contextlib
import os
import signal
import sys
from uuid import UUID

from redis import Redis, RedisError
from rq import Queue
from rq.job import Job as RQJob
from rq.worker import Worker
from sqlalchemy import select

from jobsvc.config import settings
from jobsvc.db.engine import disconnect, statement
from jobsvc.db.models import Deployment
from jobsvc.dispatch.rq_names import key
from jobsvc.errors import StoreUnavailable
from jobsvc.processes.refusal import refuse_start


class NamespaceTaken(RedisError):
    """Our namespace in this Redis belongs to another database."""

    def __init__(self) -> None:
        super().__init__(
            f"JOBSVC_NAMESPACE: {settings().JOBSVC_NAMESPACE} belongs to the jobs of another database in this Redis; "
            "use another namespace, or take it over with `jobsvc migrate --take-namespace`; for a copy of "
            "a database, first `jobsvc migrate --new-owner` gives it an id of its own"
        )


_own: UUID | None = None  # as last read from Postgres


def read_own_id() -> UUID | None:
    """Return the id of this database; None if it has none. Raises StoreUnavailable."""
    with statement() as connection:
        found: UUID | None = connection.scalar(select(Deployment.owner))
        return found


def confirm(connection: Redis) -> None:
    """Write our database's id if Redis has none; raise NamespaceTaken if another database owns the namespace.

    Does nothing while Postgres is unavailable. Raises RedisError.
    """
    global _own
    with contextlib.suppress(StoreUnavailable):
        own = _own = _own or read_own_id()
        if own is None or _is_owner(connection, own):
            return
        _own = read_own_id()  # it may have been given a new one
        if _own != own and _own and _is_owner(connection, _own):
            return
        raise NamespaceTaken


def _is_owner(connection: Redis, own: UUID) -> bool:
    found: object = connection.set(key("owner"), str(own), nx=True, get=True)
    return found is None or found == str(own).encode()


def take(connection: Redis) -> None:
    """Make our database the owner, replacing any other. Raises StoreUnavailable and RedisError."""
    if (own := read_own_id()) is not None:
        connection.set(key("owner"), str(own))


def check_at_start(connection: Redis) -> None:
    """Exit with one line on stderr if the namespace is taken. If a server is unavailable, `probe` checks later."""
    try:
        confirm(connection)
    except NamespaceTaken as error:
        refuse_start(str(error))
    except RedisError:
        pass
    finally:
        disconnect()  # fork: child processes open their own connections
        connection.connection_pool.disconnect()


def is_rq_worker() -> bool:
    """Return True in a stock worker: `rq worker` or `rq worker-pool`."""
    return "rq.cli.cli" in sys.modules and any(argument.startswith("worker") for argument in sys.argv[1:3])


def leave_to_owner(job: RQJob) -> bool:
    """If another database has taken the namespace, return the job to its queue and stop the stock worker.

    Returns False if the namespace is ours.
    """
    try:
        confirm(job.connection)
    except NamespaceTaken:
        Queue(job.origin, job.connection).push_job_id(job.id, at_front=True)
        if pid := job.connection.hget(f"{Worker.redis_worker_namespace_prefix}{job.worker_name}", "pid"):
            os.kill(int(pid), signal.SIGTERM)
        return True
    return False
