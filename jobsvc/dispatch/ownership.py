"""The owner of our namespace in Redis: the database whose jobs are in its queues.

`migrate` gives each database an id. The first deployment that uses a namespace on a Redis writes its id there. Another
one, with a database of its own, would take those jobs out of the queues and find none of them in its Postgres.
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
            "use another namespace, or take it over with `python -m jobsvc.migrate --take-namespace`; for a copy of "
            "a database, first `python -m jobsvc.migrate --new-owner` gives it an id of its own"
        )


_own: UUID | None = None  # as of the last look in Postgres


def read_own_id() -> UUID | None:
    """Return the id of this database; None where it has none. Raises StoreUnavailable."""
    with statement() as connection:
        found: UUID | None = connection.scalar(select(Deployment.owner))
        return found


def confirm(connection: Redis) -> None:
    """Write the id of our database where Redis has none; raise NamespaceTaken if it has another one's.

    Does nothing while Postgres can't tell the id. Raises RedisError.
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
    """Make our database the owner, whoever was. Raises StoreUnavailable and RedisError."""
    if (own := read_own_id()) is not None:
        connection.set(key("owner"), str(own))


def check_at_start(connection: Redis) -> None:
    """End the process with one line if the namespace is taken. What is unavailable is asked again by `probe`."""
    try:
        confirm(connection)
    except NamespaceTaken as error:
        refuse_start(str(error))
    except RedisError:
        pass
    finally:
        disconnect()  # the processes that are forked later make their own
        connection.connection_pool.disconnect()


def is_rq_worker() -> bool:
    """Return True in a stock worker: `rq worker` or `rq worker-pool`."""
    return "rq.cli.cli" in sys.modules and any(argument.startswith("worker") for argument in sys.argv[1:3])


def leave_to_owner(job: RQJob) -> bool:
    """Put back a job that a stock worker took from a namespace which was taken meanwhile, and stop that worker.

    Returns False where the namespace is ours.
    """
    try:
        confirm(job.connection)
    except NamespaceTaken:
        Queue(job.origin, job.connection).push_job_id(job.id, at_front=True)
        if pid := job.connection.hget(f"{Worker.redis_worker_namespace_prefix}{job.worker_name}", "pid"):
            os.kill(int(pid), signal.SIGTERM)
        return True
    return False
