"""The one way to Postgres: an engine for this process, and transactions on it."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from psycopg2.errors import UndefinedTable
from pydantic_core import from_json, to_json
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable


@lru_cache(maxsize=1)
def engine() -> Engine:
    """This process' engine, made at the first call."""
    return _make(pool_size=10, max_overflow=10)


@lru_cache(maxsize=1)
def _autocommit() -> Engine:
    # An engine of its own, since to switch a connection back and forth costs more than it saves.
    return _make(pool_size=2, max_overflow=8, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True)


def _make(**how: Any) -> Engine:
    made = create_engine(
        settings().DATABASE_URL,
        pool_timeout=5,
        json_serializer=_to_json,  # in half the time that `json` takes
        json_deserializer=from_json,
        # A server that has vanished from the network is given up after 10 s (milliseconds here).
        connect_args={"connect_timeout": 3, "tcp_user_timeout": 10_000, "application_name": "jobsvc"},
        **how,
    )
    event.listen(made, "connect", _on_connect)
    return made


def _to_json(value: Any) -> str:
    return to_json(value).decode()


def disconnect(close: bool = True) -> None:
    """Close the connections that nobody uses, or only forget them; others are made when they are needed."""
    for one in (engine, _autocommit):
        if one.cache_info().currsize:
            one().dispose(close)


_connections: "weakref.WeakSet[Any]" = weakref.WeakSet()


def _on_connect(connection: Any, _record: Any) -> None:
    _connections.add(connection)
    # Who froze, or was cut off, amidst a transaction keeps what it has locked no longer than a lease.
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {1000 * settings().JOBSVC_LEASE_SECONDS:.0f}")
    connection.commit()


@contextmanager
def transaction() -> Iterator[Connection]:
    """A transaction: committed at the end of the block, rolled back when it raises.

    Raises StoreUnavailable when Postgres is away, or goes away on the way. Whether a commit that
    was cut off took place is then unknown, as it is for every client of a database.
    """
    with _errors_told(), engine().begin() as connection:
        yield connection


@contextmanager
def statement() -> Iterator[Connection]:
    """For one statement, which is committed as it is executed: that takes one round trip, and a transaction three.

    Raises as `transaction` does.
    """
    with _errors_told(), _autocommit().connect() as connection:
        yield connection


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("Postgres is too slow to answer; try again soon") from error
    except DBAPIError as error:
        if isinstance(error.orig, UndefinedTable):
            raise StoreUnavailable("The tables are missing; run `make migrate`") from error
        if error.connection_invalidated:
            disconnect()  # the other engine's idle connections have most likely gone, too
        if _is_passing(error):
            raise StoreUnavailable("Postgres can't be reached; try again soon") from error
        raise


def _is_passing(error: DBAPIError) -> bool:
    """Whether trying again can help, by PostgreSQL's error codes."""
    code = getattr(error.orig, "pgcode", None) or ""
    if code.startswith("54"):  # more was sent than Postgres can hold
        return False
    read_only = "25006"  # as after a failover, until the standby is promoted
    return error.connection_invalidated or code == read_only or isinstance(error, OperationalError)


def _forget_pool() -> None:
    # A forked child must not talk over its parent's connections, nor end them, nor keep them open when its parent has
    # died: what was locked would stay so. Their places are taken, lest something else come there and be written to.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_connections):
        if not connection.closed:
            os.dup2(nowhere, connection.fileno(), inheritable=False)
    os.close(nowhere)
    disconnect(close=False)


os.register_at_fork(after_in_child=_forget_pool)
