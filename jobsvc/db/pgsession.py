"""What jobsvc asks of a session with Postgres, so that it works behind a pooler and beside any default of the server.

Nothing is SET for longer than a transaction: behind PgBouncer in transaction mode the next transaction on the same
server connection is another client's. No statement costs a round trip of its own.
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
from jobsvc.db import pgoutage
from jobsvc.errors import StoreConflict, WrongServer

P = ParamSpec("P")
T = TypeVar("T")

IDLE_SECONDS = 60.0
"""A connection that was idle for longer is replaced: a firewall may have dropped it without a word. 5 ms."""

CONFLICTS = ("40001", "40P01")
"""SQLSTATEs of a transaction that Postgres rolled back for the sake of another: serialization failure, deadlock."""

MAX_TRIES = 9
"""How often a statement or a transaction is tried that ends with one of CONFLICTS."""

FIRST_PAUSE_SECONDS = 0.005
"""Before the second try, doubled before each further one, and drawn at random up to that."""


def pause_before_try(tries: int) -> None:
    """Sleep before a conflict is tried again, `tries` tries having failed."""
    time.sleep(random.uniform(0.2, 1) * FIRST_PAUSE_SECONDS * 2 ** (tries - 1))  # noqa: S311


def retrying(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function called again, up to MAX_TRIES times in all, when it raises StoreConflict.

    For functions that are one transaction and change nothing else, so that a second call is as good as the first. An
    iterator among the arguments is read once, before the first call.
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
    """Have both engines, which share one pool, ask for the session that jobsvc needs.

    on_connect: called with each new psycopg2 connection.
    """
    # psycopg2 would send a BEGIN of its own, in a round trip of its own; so it is kept in autocommit mode.
    # Who froze, or was cut off, amidst a transaction keeps what it has locked no longer than a lease.
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
    event.listen(pool, "connect", prepare, insert=True)  # before SQLAlchemy's own first statements
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
    """Execute a statement that is a transaction of its own, again after each conflict."""
    tries = 1
    while True:
        try:
            cursor.execute(statement, parameters)
            return
        except Error as error:
            if error.pgcode not in CONFLICTS or tries == MAX_TRIES:
                raise
        pause_before_try(tries)
        tries += 1


def _check_encoding(encoding: str | None) -> None:
    """Raise WrongServer unless the database can hold every text. The server says so when a session begins."""
    if encoding not in (None, "UTF8"):
        raise WrongServer(f"DATABASE_URL: the encoding of the database is {encoding}, it has to be UTF8")


def _note_idle(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()


def _check_alive(connection: Any, record: Any, _fairy: Any) -> None:
    """Have a connection replaced that was cut while it was idle, or was idle for long. 3 us, no round trip."""
    idle_since = record.info.get("idle_since")
    if idle_since is None:  # it was made just now
        return
    if connection.closed or time.monotonic() - idle_since > IDLE_SECONDS or _has_news(connection.fileno()):
        raise DisconnectionError


def _has_news(descriptor: int) -> bool:
    """Return True if something came while nothing was asked: as a rule, the server's farewell."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
