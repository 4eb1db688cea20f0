"""Detects a pooler in front of Postgres that does not allow transactions."""

from sqlalchemy.exc import DBAPIError

from jobsvc.db.engine import engine, statement
from jobsvc.errors import StoreUnavailable

REFUSED = "DATABASE_URL: PgBouncer pools by statement, it has to pool by transaction or session"

TRIES = 3
"""Number of tries, since a server that is shutting down closes connections, too."""


def pools_by_statement() -> bool:
    """Return True if single statements work, but starting a transaction closes the connection.

    This is how PgBouncer rejects transactions in pool mode `statement`; only its own log has the reason.
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
