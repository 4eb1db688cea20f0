"""The revision of the tables: that of the newest migration that was applied."""

from psycopg2.errors import UndefinedTable
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from jobsvc.errors import WrongServer

REVISION = "0011"
"""Revision that this program needs: that of the newest file in migrations/versions/, which a test compares."""


def read_revision(connection: Connection) -> str | None:
    """Return the revision of the tables; None if there are none. Then the transaction has failed."""
    try:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    except DBAPIError as error:
        if isinstance(error.orig, UndefinedTable):
            return None
        raise
    return found


def is_newer(revision: str | None) -> bool:
    """Return True if a newer version of this program has migrated the tables."""
    return revision is not None and revision.isdigit() and revision > REVISION


def check_tables(connection: Connection) -> None:
    """Raise WrongServer if the tables are missing or older than this program.

    Newer tables are used: a migration allows processes of the previous version to go on.
    """
    found = read_revision(connection)
    if found is None:
        raise WrongServer("DATABASE_URL: the tables are missing; run `jobsvc migrate`")
    if found.isdigit() and found < REVISION:
        raise WrongServer(
            f"DATABASE_URL: the tables are older than this program (revision {found}, it needs {REVISION}); "
            "run `jobsvc migrate`"
        )
