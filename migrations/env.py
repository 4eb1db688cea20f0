"""How Alembic runs here: on jobsvc's engine, against its models. An error ends the program with one line."""

import logging
import time
from typing import Any

from alembic import context
from alembic.util import CommandError
from flask import current_app
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from jobsvc.db import (  # noqa: F401  # parts of Base.metadata
    counter_tables,
    dependency_models,
    idempotency_models,
    job_type_models,
    rate_models,
)
from jobsvc.db.engine import engine
from jobsvc.db.models import Base
from jobsvc.db.poolmode import REFUSED, pools_by_statement
from jobsvc.errors import JobsvcError
from jobsvc.printable import describe_exception
from jobsvc.processes.refusal import refuse_start

logger = logging.getLogger("jobsvc.migrations")
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)  # it logs steps that are then rolled back

LOCK = 0x6A6F6273  # any number that is ours; two programs may start, and migrate, at once
LOCK_SECONDS = 2
"""Longest wait for a lock of a table. Requests that come later wait behind it, for as long as another transaction,
such as a dump, uses the table."""

PAUSE_SECONDS = 5
TRIES = 120
"""About 10 to 14 minutes."""

IN_USE = ("55P03", "40P01")
"""SQLSTATEs: a lock was not available in time; deadlock."""


def migrate_patiently() -> None:
    """Call `migrate` again while other transactions use the tables."""
    for left in range(TRIES - 1, -1, -1):
        try:
            migrate()
            return
        except DBAPIError as error:
            if not left or getattr(error.orig, "pgcode", None) not in IN_USE:
                raise
        logger.warning("tables: another transaction uses them, next try in %d s (%d left)", PAUSE_SECONDS, left)
        time.sleep(PAUSE_SECONDS)


def migrate() -> None:
    """Run what Alembic was asked for, in one transaction, and log the new revision if that changed it."""
    applied: list[Any] = []
    with engine().connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_server_default=True,
            on_version_apply=[lambda step, **_: applied.append(step)],
        )
        with context.begin_transaction():
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            context.run_migrations()
    for step in applied[-1:]:
        grade = "upgraded" if step.is_upgrade else "downgraded"
        logger.info("tables: %s to revision %s", grade, ", ".join(step.destination_revision_ids) or "none")


def refuse(error: Exception) -> None:
    """End the program with the error's cause, as the driver or Alembic puts it."""
    if isinstance(error, JobsvcError):
        refuse_start(str(error))
    cause = getattr(error, "orig", None) or error
    what = (str(cause).strip().splitlines() or [type(cause).__name__])[0]  # the other lines are hints and statements
    if isinstance(error, CommandError) and "locate revision" in what:
        refuse_start(f"DATABASE_URL: the tables were made by another version of this program ({what}): run that one")
    if isinstance(error, DBAPIError) and error.connection_invalidated and pools_by_statement():
        refuse_start(REFUSED)
    if isinstance(error, DBAPIError) and error.statement is None:
        refuse_start(f"DATABASE_URL: Postgres can't be reached: {what}")
    if isinstance(error, DBAPIError):
        refuse_start(f"DATABASE_URL: the migration failed, and nothing was changed: {what}")
    refuse_start(f"the migration failed, and nothing was changed: {type(error).__name__}: {describe_exception(error)}")


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    if current_app and "relay" in current_app.extensions:
        current_app.extensions["relay"].stop()  # a migration must not sweep or log outages
    try:
        migrate_patiently()
    except Exception as error:
        refuse(error)
