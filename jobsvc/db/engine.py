"""The one way to Postgres: the connections of this process, and transactions on them."""

import os
import sys
import weakref
from functools import lru_cache
from types import CodeType, TracebackType
from typing import Any, Literal, NamedTuple

from psycopg2.errors import InsufficientPrivilege, UndefinedTable
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
"""How long a thread waits for a connection while all JOBSVC_DB_CONNECTIONS are in use."""

CONNECT_SECONDS = 3
"""How long a connection may take to be made."""

VANISHED_SECONDS = 10
"""A server that answers nothing at all for so long has vanished from the network (TCP_USER_TIMEOUT)."""


class _Engines(NamedTuple):
    """Two engines on the same connections: SQLAlchemy begins a transaction by itself on any engine but `single`."""

    transactional: Engine
    single: Engine


@lru_cache(maxsize=1)
def _engines() -> _Engines:
    first = _make(
        pool_size=settings().JOBSVC_DB_CONNECTIONS,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        pool_use_lifo=True,  # so that those not needed grow old, and a burst's are replaced when they are used again
        # A server that has vanished from the network is given up (milliseconds here).
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": 1000 * VANISHED_SECONDS,
            "application_name": "jobsvc",
            "client_encoding": "utf8",  # whatever PGCLIENTENCODING or the role's settings say
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
    """Return this process' engine for transactions, made at the first call."""
    return _engines().transactional


def _to_json(value: Any) -> str:
    return to_json(value).decode()


def disconnect(close: bool = True) -> None:
    """Close the connections that nobody uses, or only forget them; others are made when they are needed."""
    if _engines.cache_info().currsize:
        engines = _engines()
        engines.transactional.dispose(close)
        engines.single.pool = engines.transactional.pool


_connections: "weakref.WeakSet[Any]" = weakref.WeakSet()


class transaction:  # noqa: N801  # it is used as a function
    """A transaction, READ COMMITTED: committed at the end of the block, rolled back when it raises.

    Raises StoreUnavailable when Postgres is unavailable, or becomes so on the way. Whether a commit that was cut off
    took place is then unknown, as it is for every client of a database. Raises StoreConflict when Postgres rolled it
    back for the sake of another one: see `retrying`.
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
                # Nothing was done yet, so that a connection that was cut while it was idle costs nothing.
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
    """For one statement, which is committed as it is executed: that takes one round trip, and a transaction three.

    It runs at the server's default isolation level, and is repeated where Postgres rolled it back for the sake of
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
"""Changes no row, which a standby refuses all the same, and writes 416 KB to a temporary file, which a full disk
refuses. The file is gone with the statement. Some 15 ms."""

TEMP_FILE_LIMIT = "53400"
"""SQLSTATE: the role may write no temporary files of this size, which says nothing about the disk."""


def check_writable() -> None:
    """Raise StoreUnavailable unless jobs can be stored now: not on a standby, and not on a full disk."""
    with transaction() as connection:
        try:
            connection.exec_driver_sql(_WRITE_PROBE)
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != TEMP_FILE_LIMIT:
                raise


def _raise_for(error: Exception, caller: CodeType) -> None:
    """Raise the error as a StoreUnavailable, if trying again later can help, and note the outage."""
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
    if isinstance(error.orig, UndefinedTable):
        pgoutage.failed("the tables are missing; run `make migrate`", code, caller)
        raise StoreUnavailable("The tables are missing; run `make migrate`") from error
    if isinstance(error.orig, InsufficientPrivilege):
        pgoutage.failed(pgoutage.cause_of(error), code, caller)
        raise StoreUnavailable("Postgres can't be used as it is set up; the log says why") from error
    if _is_passing(error, code):
        pgoutage.failed(pgoutage.cause_of(error), code, caller)
        raise StoreUnavailable("Postgres can't be reached; try again soon") from error


def _is_passing(error: DBAPIError, code: str) -> bool:
    """Return True if trying again can help, by PostgreSQL's error codes."""
    if code.startswith("54"):  # more was sent than Postgres can hold
        return False
    return error.connection_invalidated or code == pgoutage.READ_ONLY or isinstance(error, OperationalError)


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
