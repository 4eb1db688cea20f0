"""This process' connections to Postgres, and transactions on them. All access to Postgres goes through here."""

import os
import sys
import weakref
from functools import lru_cache
from types import CodeType, TracebackType
from typing import Any, Literal, NamedTuple

from psycopg2.errors import InsufficientPrivilege, UndefinedColumn, UndefinedTable
from pydantic_core import from_json, to_json
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobsvc.config import settings
from jobsvc.db import pgoutage, pgsession
from jobsvc.db.pgsession import retrying
from jobsvc.errors import StoreBusy, StoreConflict, StoreUnavailable, WrongServer

__all__ = ["check_writable", "disconnect", "engine", "retrying", "statement", "transaction"]

POOL_SECONDS = 5
"""Longest time a thread waits for a connection while all JOBSVC_DB_CONNECTIONS are in use."""

CONNECT_SECONDS = 3
"""Timeout for a new connection."""

VANISHED_SECONDS = 10
"""Time without any reply after which a server counts as unreachable (TCP_USER_TIMEOUT)."""


class _Engines(NamedTuple):
    """Two engines on one pool. SQLAlchemy starts a transaction by itself on `transactional`, but not on `single`."""

    transactional: Engine
    single: Engine


@lru_cache(maxsize=1)
def _engines() -> _Engines:
    first = _make(
        pool_size=settings().JOBSVC_DB_CONNECTIONS,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_use_lifo=True,  # unused connections become old and are replaced at their next use
        # tcp_user_timeout is in milliseconds.
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": 1000 * VANISHED_SECONDS,
            "application_name": "jobsvc",
            "client_encoding": "utf8",  # overrides PGCLIENTENCODING and the role's settings
        },
    )
    second = _make(pool=first.pool)
    pgsession.set_up(first, second, _connections.add)
    return _Engines(first, second)


def _make(**how: Any) -> Engine:
    return create_engine(
        settings().DATABASE_URL,
        json_serializer=_to_json,  # in half the time that `json` takes
        json_deserializer=from_json,
        **how,
    )


def engine() -> Engine:
    """Return this process' engine for transactions, created at the first call."""
    return _engines().transactional


def _to_json(value: Any) -> str:
    return to_json(value).decode()


def disconnect(close: bool = True) -> None:
    """Close the idle connections, or only drop them if not `close`; new ones are opened when needed."""
    if _engines.cache_info().currsize:
        engines = _engines()
        engines.transactional.dispose(close)
        engines.single.pool = engines.transactional.pool


def close_idle_connection() -> None:
    """Close one idle connection, if there is one; for a caller that has used at most one at a time."""
    if _engines.cache_info().currsize and _engines().single.pool.checkedin():  # type: ignore[attr-defined]
        with statement() as connection:
            connection.invalidate()


_connections: "weakref.WeakSet[Any]" = weakref.WeakSet()


class transaction:  # noqa: N801  # it is used as a function
    """Run the block in a READ COMMITTED transaction: committed at its end, rolled back if it raises.

    Raises StoreUnavailable if Postgres is or becomes unavailable; if that interrupts the commit, the transaction may
    have been committed. Raises StoreConflict if Postgres rolled it back in favour of another: see `retrying`.
    """

    __slots__ = ("_connection",)

    def __enter__(self) -> Connection:
        caller = sys._getframe(1).f_code
        for is_last in (False, True):
            try:
                self._connection = _engines().transactional.connect()
            except Exception as error:
                _raise_for(error, caller)
                raise
            try:
                self._connection.begin()
                return self._connection
            except Exception as error:
                # Nothing was executed yet: if the connection was cut while idle, try once with a new one.
                is_cut = isinstance(error, DBAPIError) and error.connection_invalidated
                self._connection.close()
                if is_last or not is_cut:
                    _raise_for(error, caller)
                    raise
        raise AssertionError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        connection = self._connection
        caller = sys._getframe(1).f_code
        try:
            try:
                if error is None:
                    connection.commit()
                else:
                    connection.rollback()
            finally:
                connection.close()
        except Exception as failure:
            if error is None or not isinstance(failure, DBAPIError):
                _raise_for(failure, caller)
                raise
        if error is None:
            pgoutage.succeeded(caller, check_writable)
        elif isinstance(error, Exception):
            _raise_for(error, caller)
        return False


class statement:  # noqa: N801
    """Run one statement in autocommit mode: one round trip instead of a transaction's three.

    It runs at the server's default isolation level, and is repeated if Postgres rolled it back in favour of
    another transaction. Raises as `transaction` does.
    """

    __slots__ = ("_connection",)

    def __enter__(self) -> Connection:
        try:
            self._connection = _engines().single.connect()
        except Exception as error:
            _raise_for(error, sys._getframe(1).f_code)
            raise
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._connection.close()
        if error is None:
            pgoutage.succeeded(sys._getframe(1).f_code, check_writable)
        elif isinstance(error, Exception):
            _raise_for(error, sys._getframe(1).f_code)
        return False


_WRITE_PROBE = """
UPDATE jobs SET id = id WHERE false;
SET LOCAL work_mem = 64;
SET LOCAL temp_tablespaces = '';
SELECT count(*) FROM generate_series(1, 30000)
"""
"""Changes no row, but a standby rejects it; writes 416 KB to a temporary file, which fails on a full disk. Postgres
deletes the file at the end of the statement. Takes about 15 ms."""

TEMP_FILE_LIMIT = "53400"
"""SQLSTATE: temp_file_limit of the role is exceeded, which doesn't mean that the disk is full."""


def check_writable() -> None:
    """Raise StoreUnavailable unless jobs can be stored now: on a standby or a full disk they can't."""
    with transaction() as connection:
        try:
            connection.exec_driver_sql(_WRITE_PROBE)
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != TEMP_FILE_LIMIT:
                raise


def _raise_for(error: Exception, caller: CodeType) -> None:
    """Raise StoreUnavailable or a subclass, and record the outage, if a later try may succeed; else return."""
    if isinstance(error, PoolTimeout):
        pgoutage.pool_is_full()
        raise StoreBusy("Too many requests need Postgres at once; try again soon") from error
    if isinstance(error, WrongServer):
        pgoutage.failed(str(error), "", caller)
        raise StoreUnavailable("Postgres can't be used as it is set up; the log says why") from error
    if not isinstance(error, DBAPIError):
        return
    code = getattr(error.orig, "pgcode", None) or ""
    if code in pgsession.CONFLICTS:
        raise StoreConflict("Postgres could not do this beside other requests; try again soon") from error
    if isinstance(error.orig, UndefinedTable | UndefinedColumn):  # not noticed at start if Postgres was unavailable
        pgoutage.failed("the tables are missing, or older than this program; run `jobsvc migrate`", code, caller)
        raise StoreUnavailable("The tables are missing, or older than this program; run `jobsvc migrate`") from error
    if isinstance(error.orig, InsufficientPrivilege):
        pgoutage.failed(pgoutage.cause_of(error), code, caller)
        raise StoreUnavailable("Postgres can't be used as it is set up; the log says why") from error
    if _is_passing(error, code):
        pgoutage.failed(pgoutage.cause_of(error), code, caller)
        raise StoreUnavailable("Postgres can't be reached; try again soon") from error


def _is_passing(error: DBAPIError, code: str) -> bool:
    """Return True if a later try may succeed, by PostgreSQL's error codes."""
    if code.startswith("54"):  # program_limit_exceeded: the data is too large
        return False
    is_standby = code in (pgoutage.READ_ONLY, pgoutage.NO_UNLOGGED_TABLE)
    return error.connection_invalidated or is_standby or isinstance(error, OperationalError)


def _forget_pool() -> None:
    # fork: a child must not use, close or keep open its parent's sockets (an open copy would hold the parent's locks
    # after its death). Each is replaced by /dev/null, so that no other file gets its descriptor number.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_connections):
        if not connection.closed:
            os.dup2(nowhere, connection.fileno(), inheritable=False)
    os.close(nowhere)
    disconnect(close=False)


os.register_at_fork(after_in_child=_forget_pool)
