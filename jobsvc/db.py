"""The one way to Postgres: an engine for this process, and transactions on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from psycopg2.errors import UndefinedTable
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable


@lru_cache(maxsize=1)
def engine() -> Engine:
    """This process' engine, made at the first call."""
    return create_engine(
        settings().DATABASE_URL,
        pool_size=10,
        max_overflow=10,
        pool_timeout=5,
        connect_args={"connect_timeout": 3, "application_name": "jobsvc"},
    )


@contextmanager
def transaction() -> Iterator[Connection]:
    """A transaction: committed at the end of the block, rolled back when it raises.

    Raises StoreUnavailable when Postgres is away, or goes away on the way. Whether a commit that
    was cut off took place is then unknown, as it is for every client of a database.
    """
    try:
        with engine().begin() as connection:
            yield connection
    except (OperationalError, PoolTimeout) as error:
        raise StoreUnavailable("Postgres can't be reached; try again soon") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailable("Postgres went away; try again soon") from error
        if isinstance(error.orig, UndefinedTable):
            raise StoreUnavailable("The tables are missing; run `make migrate`") from error
        raise


def _forget_pool() -> None:
    # A forked child must not talk over its parent's connections, nor close them.
    if engine.cache_info().currsize:
        engine().dispose(close=False)


os.register_at_fork(after_in_child=_forget_pool)
