"""`flask jobs …`: job commands for people at a terminal, and with `--json` for scripts.

The commands use Postgres, as the API's views do, not the API.
"""

import io
import logging
import sys
from typing import Any

import click
from psycopg2.errors import InsufficientPrivilege, UndefinedTable
from sqlalchemy.exc import DBAPIError

from jobsvc.api.submit import relay
from jobsvc.cli import act, show
from jobsvc.db.pgoutage import cause_of
from jobsvc.errors import JobsvcError, StoreUnavailable


class _Jobs(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StoreUnavailable as error:
            raise click.ClickException(_with_cause(error)) from None
        except JobsvcError as error:
            raise click.ClickException(str(error)) from None
        except DBAPIError as error:
            raise click.ClickException(f"Postgres refused this: {cause_of(error)}") from None


def _with_cause(error: StoreUnavailable) -> str:
    """Return the error and its cause in Postgres in one line; a long-running process would log the cause."""
    cause = error.__cause__
    if not isinstance(cause, DBAPIError) or isinstance(cause.orig, UndefinedTable):
        return str(error)
    if isinstance(cause.orig, InsufficientPrivilege):
        return f"Postgres refused this: {cause_of(cause)}"
    return f"{error}: {cause_of(cause)}"


@click.group("jobs", cls=_Jobs)
def commands() -> None:
    """Look at jobs, retry and cancel them."""
    relay().stop()
    logging.getLogger("jobsvc.db").setLevel(logging.ERROR)  # the command's own error has the cause
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # any text of a job can be printed


for command in (show.list_jobs, show.show, show.tail, show.stats, act.retry, act.cancel):
    commands.add_command(command)
