"""Options of `flask jobs …`: job filters, named as in the API, and JSON output."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import click

from jobsvc.jobs import Filter, current_time
from jobsvc.states import Status

_WRONG_OFFSET = re.compile(r"[Tt ].*[+-][0-9]{2}:?[6-9][0-9](:|$)")
"""Matches a UTC offset whose minutes are 60 or more, which Python accepts."""

Command = Callable[..., Any]


def print_json(value: Any) -> None:
    """Print a JSON value as one line."""
    click.echo(json.dumps(value, separators=(",", ":")))


class Word(click.ParamType[Any]):
    """A name or tag as the API accepts it; never empty, since that would not filter at all."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not 1 <= len(value) <= 255:
            self.fail("must have 1 to 255 characters", param, ctx)
        try:
            value.encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8 arrive as lone surrogates
            self.fail("must be UTF-8", param, ctx)
        return str(value)


class Moment(click.ParamType[Any]):
    """A time, or an age such as 90s, 15m, 2h or 7d."""

    name = "time"
    UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            if age := re.fullmatch(r"([0-9]+)([smhd])", value):
                moment = current_time() - timedelta(**{self.UNITS[age[2]]: int(age[1])})
            else:
                moment = datetime.fromisoformat(value).astimezone(UTC)  # without an offset: local time
            if _WRONG_OFFSET.search(value) or not 1970 <= moment.year < 9999:
                raise ValueError
        except (ValueError, OverflowError):
            self.fail(f"{value!a} is no time like 2030-01-31T12:00 and no age like 90s, 15m, 2h or 7d", param, ctx)
        return moment


def filters(command: Command) -> Command:
    """Add the filter options to a command, which gets the filter as `which`."""
    names = ("status", "type", "queue", "tag", "after", "before")
    options = (
        click.option(
            "--status", type=click.Choice([*Status], case_sensitive=False), multiple=True, help="Any of them."
        ),
        click.option("--type", type=Word()),
        click.option("--queue", type=Word()),
        click.option("--tag", type=Word(), multiple=True, help="All of them."),
        click.option("--after", type=Moment(), help="Created at this time (or 2h ago) or later."),
        click.option("--before", type=Moment(), help="Created before this time (or 2h ago)."),
    )

    @wraps(command)
    def run(**given: Any) -> Any:
        return command(which=Filter(*(given.pop(name) for name in names)), **given)

    for option in reversed(options):
        run = option(run)
    return run


as_json = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")


def on_jobs(command: Command) -> Command:
    """Add the arguments and options of a command that acts on given jobs, or on all that match a filter."""
    yes = click.option("--yes", is_flag=True, help="Don't ask before acting on all jobs that the options mean.")
    return click.argument("job_ids", metavar="[ID]...", nargs=-1, type=click.UUID)(filters(yes(as_json(command))))
