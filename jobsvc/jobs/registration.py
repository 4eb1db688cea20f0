"""Registers this process' job types and queues in Postgres, where the function `jobsvc_enqueue` finds them.

A process adds its own or renews them, and removes none: other processes may have other handlers and queues.
"""

from contextlib import suppress
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from jobsvc import handlers
from jobsvc.config import settings
from jobsvc.db.engine import engine, retrying, transaction
from jobsvc.db.job_type_models import JobType, ServedQueue
from jobsvc.db.sql import now
from jobsvc.errors import StoreUnavailable
from jobsvc.handlers import Handler

_is_registered = False  # inherited by forked processes


def register_at_start() -> None:
    """Register the types and queues at the start of a process, if Postgres is available.

    Logs no outage: the process forks, and forked processes would not log its end. `ensure_registered` tries again.
    """
    global _is_registered
    with suppress(SQLAlchemyError, StoreUnavailable):
        with engine().begin() as connection:
            _store(connection)
        _is_registered = True


def ensure_registered() -> None:
    """Register the types and queues, unless this process or a parent has done so. Raises StoreUnavailable."""
    global _is_registered
    if not _is_registered:
        register()
        _is_registered = True


@retrying
def register() -> None:
    """Add or renew this process' job types, with their defaults, and its queues. Raises StoreUnavailable."""
    with transaction() as connection:
        _store(connection)


def _store(connection: Connection) -> None:
    types = [_type_row(one) for one in map(handlers.find, handlers.names()) if one]
    queues = [{"name": name, "updated_at": now()} for name in settings().JOBSVC_QUEUES]
    for table, rows in ((JobType, types), (ServedQueue, queues)):
        # A fixed order: two processes that start at once must not wait for each other (deadlock).
        new = insert(table).values(sorted(rows, key=lambda row: row["name"]))
        renewed = {name: new.excluded[name] for name in rows[0] if name != "name"}
        connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=renewed))


def _type_row(handler: Handler) -> dict[str, Any]:
    return {
        "name": handler.name,
        "queue": handler.default_queue,
        "timeout": handler.timeout,
        "retry": handler.retry.model_dump(exclude_none=True),
        "rate_limit": handler.rate_limit.model_dump() if handler.rate_limit else None,
        "updated_at": now(),
    }
