"""The command `jobsvc`. Each subcommand imports only what it runs: a worker loads no HTTP server."""

import os
import signal
import sys
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from jobsvc import __version__

if TYPE_CHECKING:
    from flask import Flask


class _Commands(click.Group):
    """The subcommands in the order of their use; `jobs` is a group of its own, loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return ["up", "api", "worker", "migrate", "jobs", "health", "demo"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the subcommand with this name."""
        if cmd_name == "jobs":
            from jobsvc.cli.commands import commands

            return commands
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="jobsvc %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """A job queue with an HTTP API.

    The settings are variables of the environment or of a file .env in the current folder, such as DATABASE_URL,
    REDIS_URL, PORT and JOBSVC_HANDLERS.
    """
    ctx.obj = _app_of_commands


def _app_of_commands() -> "Flask":
    """Create the application of `jobsvc jobs`, on the embedded servers that run in this folder if no URL is set."""
    from jobsvc import devservices
    from jobsvc.processes.refusal import exit_on_error

    with exit_on_error():
        os.environ.update(devservices.running_urls())
    from jobsvc.app import create_app

    return create_app()


@main.command()
@click.option("--parent", type=int, hidden=True, help="a process at whose end everything is stopped as well")
def up(parent: int | None) -> NoReturn:
    """Run everything: servers, migrations, API, worker.

    Postgres and Valkey are started in .jobsvc/ unless DATABASE_URL and REDIS_URL are set. Ctrl-C stops everything.
    """
    from jobsvc.devservices.up import run_up

    run_up(parent)


@main.command()
def api() -> None:
    """Serve the API."""
    from jobsvc import serve

    serve.main()


@main.command()
def worker() -> None:
    """Run a worker: JOBSVC_WORKERS processes and a relay."""
    from jobsvc.worker import pool

    pool.main()


@main.command()
@click.option("--new-owner", is_flag=True, help="Give the database an id of its own, after it was copied.")
@click.option(
    "--take-namespace",
    is_flag=True,
    help="Make this database the owner of JOBSVC_NAMESPACE in Redis; other databases' processes stop using it.",
)
def migrate(new_owner: bool, take_namespace: bool) -> None:
    """Create the tables, or bring them up to date."""
    from jobsvc import migrate

    migrate.migrate(new_owner, take_namespace)


@main.command()
@click.argument("program", required=False, type=click.Choice(["api", "worker"]))
def health(program: Literal["api", "worker"] | None) -> None:
    """Check the API or the worker on this host.

    PROGRAM is api or worker; in a container, by default the one that runs there. The exit status is 1 if the API does
    not answer, or if fewer than JOBSVC_WORKERS processes of the worker send heartbeats. An unavailable Postgres or
    Redis is no failure, since a restart would not mend that.
    """
    from jobsvc.health import check

    check(program)


@main.command()
def demo() -> NoReturn:
    """Post jobs to the running service with curl, and watch them.

    The service is that of HOST and PORT, or of JOBSVC_URL. The key is KEY, or one of JOBSVC_API_KEYS.
    """
    from jobsvc import devservices, locations
    from jobsvc.processes.refusal import exit_on_error

    with exit_on_error():
        settings = devservices.check_settings()
    secrets = [one.secret for one in settings.JOBSVC_API_KEYS if one.scope != "read"]
    key = next((secret for secret in secrets if not secret.startswith("sha256:")), "")
    url = os.environ.get("JOBSVC_URL") or settings.address
    variables = {"JOBSVC_URL": url, "KEY": os.environ.get("KEY") or key, "PYTHON": sys.executable}
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and the shell would inherit that
    os.execvpe("sh", ["sh", str(locations.demo())], {**os.environ, **variables})  # noqa: S606
