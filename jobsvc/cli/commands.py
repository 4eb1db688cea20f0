"""`jobsvc jobs …`, also `flask jobs …`: commands for people at a terminal and, with `--json`, for scripts.

The commands use Postgres and Redis directly, not the API.
"""

import io
import logging
import sys
from typing import Any

import click
from flask import has_app_context
from psycopg2.errors import InsufficientPrivilege, UndefinedTable
from redis import RedisError
from sqlalchemy.exc import DBAPIError

from jobsvc.api.submit import relay
from jobsvc.db.pgoutage import cause_of
from jobsvc.errors import InvalidInput, JobsvcError, StoreUnavailable
from jobsvc.printable import describe_exception


class _WrongInput(click.ClickException):
    """A job that does not fit its schema."""

    exit_code = 2


class _Jobs(click.Group):
    """The group of commands, loaded when one is used. Errors that are no bug of jobsvc are shown as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, sorted."""
        return sorted(_load())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with this name."""
        return _load().get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ClickException."""
        try:
            return super().invoke(ctx)
        except InvalidInput as error:
            raise _WrongInput(str(error)) from None
        except StoreUnavailable as error:
            raise click.ClickException(_with_cause(error)) from None
        except JobsvcError as error:
            raise click.ClickException(str(error)) from None
        except DBAPIError as error:
            raise click.ClickException(f"Postgres refused this: {cause_of(error)}") from None
        except RedisError as error:
            raise click.ClickException(f"Redis can't be used: {describe_exception(error)}") from None


def _with_cause(error: StoreUnavailable) -> str:
    """Return the error and its cause in Postgres in one line; a long-running process would log the cause."""
    cause = error.__cause__
    if not isinstance(cause, DBAPIError) or isinstance(cause.orig, UndefinedTable):
        return str(error)
    if isinstance(cause.orig, InsufficientPrivilege):
        return f"Postgres refused this: {cause_of(cause)}"
    return f"{error}: {cause_of(cause)}"


@click.group("jobs", cls=_Jobs, epilog="Exit status: 0 done; 1 not found, refused or unavailable; 2 wrong usage.")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Show and change jobs and queues."""
    if not has_app_context():  # started by `jobsvc`, whose context brings a function that makes the application
        ctx.with_resource(ctx.obj().app_context())
    relay().stop()
    logging.getLogger("jobsvc.db").setLevel(logging.ERROR)  # the command's own error names the cause
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # any text of a job can be printed


def _load() -> dict[str, click.Command]:
    from jobsvc.cli import act, show  # loads rich, which the API must not

    showing = (
        show.list_jobs,
        show.show,
        show.explain_job,
        show.tail,
        show.stats,
        show.workers,
        show.schedules,
        show.types,
    )
    acting = (act.enqueue, act.update, act.retry, act.cancel, act.delete, act.pause, act.resume)
    return {str(command.name): command for command in (*showing, *acting)}
