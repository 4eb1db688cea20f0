"""Sets up sessions with Postgres so that they work behind a pooler and with any defaults of the server.

Settings last for one transaction at most: behind PgBouncer in transaction mode, the next transaction on the same
server connection may be another client's. None of them needs an extra round trip.
"""

import random
import select
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from psycopg2 import Error
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

from jobsvc.config import settings
from jobsvc.db import pgoutage, prepared_statements
from jobsvc.errors import StoreConflict, WrongServer

P = ParamSpec("P")
T = TypeVar("T")

IDLE_SECONDS = 60.0
"""A connection idle for longer is replaced, since a firewall may have dropped it silently. Replacing takes 5 ms."""

CONFLICTS = ("40001", "40P01")
"""SQLSTATEs of a transaction rolled back in favour of another: serialization failure, deadlock."""

MAX_TRIES = 9
"""Maximum number of tries of a statement or transaction that fails with one of CONFLICTS."""

FIRST_PAUSE_SECONDS = 0.005
"""Upper bound of the random pause before the second try; doubled before each further one."""


def pause_before_try(tries: int) -> None:
    """Sleep before the next try, after `tries` tries failed with a conflict."""
    time.sleep(random.uniform(0.2, 1) * FIRST_PAUSE_SECONDS * 2 ** (tries - 1))  # noqa: S311


def retrying(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function to be called again when it raises StoreConflict, up to MAX_TRIES times in all.

    The function must be one transaction and change nothing else, so that it can be repeated. Iterators among the
    positional arguments are read once, before the first call.
    """

    @wraps(function)
    def retried(*args: P.args, **kwargs: P.kwargs) -> T:
        tries = 1
        lasting: Any = [list(one) if isinstance(one, Iterator) else one for one in args]
        while True:
            try:
                return function(*lasting, **kwargs)
            except StoreConflict:
                if tries == MAX_TRIES:
                    raise
            pause_before_try(tries)
            tries += 1

    return retried


def set_up(transactional: Engine, single: Engine, on_connect: Callable[[Any], None]) -> None:
    """Configure both engines, which share one pool, for the sessions that jobsvc needs.

    on_connect: called with each new psycopg2 connection.
    """
    # Autocommit mode: psycopg2's own BEGIN would take a round trip.
    # The timeout: a client that hangs or is cut off in a transaction keeps its locks no longer than a lease.
    lease_ms = int(1000 * settings().JOBSVC_LEASE_SECONDS)
    begin = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {lease_ms}"
    _replace(transactional, do_begin=lambda connection: _execute(connection, begin))
    _replace(single, do_begin=lambda connection: None, do_execute=_execute_again)
    transactional.pool._dialect = transactional.dialect

    def prepare(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        on_connect(connection)
        _check_encoding(connection.get_parameter_status("server_encoding"))
        pgoutage.connected()

    pool = transactional.pool
    event.listen(pool, "connect", prepare, insert=True)  # before SQLAlchemy's own statements
    event.listen(pool, "checkin", _note_idle)
    event.listen(pool, "checkout", _check_alive)


def _replace(engine: Engine, **functions: Callable[..., Any]) -> None:
    for name, function in {"do_commit": _commit, "do_rollback": _rollback, **functions}.items():
        setattr(engine.dialect, name, function)


def _execute(connection: Any, command: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(command)


def _commit(connection: Any) -> None:
    _execute(connection, "COMMIT")


def _rollback(connection: Any) -> None:
    if not connection.closed and connection.get_transaction_status() != TRANSACTION_STATUS_IDLE:
        _execute(connection, "ROLLBACK")


def _execute_again(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
    """Execute a statement in autocommit mode; repeat it after each conflict."""
    tries = 1
    while True:
        try:
            prepared_statements.execute(cursor, statement, parameters, context)
            return
        except Error as error:
            if error.pgcode not in CONFLICTS or tries == MAX_TRIES:
                raise
        pause_before_try(tries)
        tries += 1


def _check_encoding(encoding: str | None) -> None:
    """Raise WrongServer unless the encoding that the server reported at connection is UTF8, or unknown."""
    if encoding not in (None, "UTF8"):
        raise WrongServer(f"DATABASE_URL: the encoding of the database is {encoding}, it has to be UTF8")


def _note_idle(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _check_alive(connection: Any, record: Any, _fairy: Any) -> None:
    """Raise DisconnectionError, so that the pool replaces a connection cut or too long idle. 3 µs, no round trip."""
    idle_since = record.info.get("idle_since")
    if idle_since is None:  # a new connection
        return
    if connection.closed or time.monotonic() - idle_since > IDLE_SECONDS or _has_news(connection.fileno()):
        raise DisconnectionError


def _has_news(descriptor: int) -> bool:
    """Return True if unrequested data has arrived: usually the server's message that it closes the connection."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
