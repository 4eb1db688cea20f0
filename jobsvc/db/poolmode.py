"""Whether a pooler between us and Postgres allows transactions."""

from sqlalchemy.exc import DBAPIError

from jobsvc.db.engine import engine, statement
from jobsvc.errors import StoreUnavailable

REFUSED = "DATABASE_URL: PgBouncer pools by statement, it has to pool by transaction or session"

TRIES = 3
"""A server that ends just now closes a connection, too."""


def pools_by_statement() -> bool:
    """Return True if single statements work, and whoever begins a transaction finds the connection closed.

    That is how PgBouncer refuses transactions in its pool mode `statement`; the reason is only in its log.
    """
    for _ in range(TRIES):
        try:
            with statement() as connection:
                connection.exec_driver_sql("SELECT 1")
        except StoreUnavailable:
            return False
        try:
            with engine().begin():
                return False
        except DBAPIError as error:
            if not error.connection_invalidated:
                return False
    return True
