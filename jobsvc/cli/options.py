"""Arguments and options of the commands, named as in the API, and their JSON output."""

import json
import os
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any
from uuid import UUID

import click

from jobsvc import jobs, strict_json
from jobsvc.api.queries import read_payload
from jobsvc.config import settings
from jobsvc.db.conditions import MAX_ERROR
from jobsvc.jobs import Filter, current_time
from jobsvc.states import Status

ID_HELP = f"An ID is a job's whole id, or its last 8 characters if the job is among the newest {jobs.MOST_SEARCHED:,}."

_WRONG_OFFSET = re.compile(r"[Tt ].*[+-][0-9]{2}:?[6-9][0-9](:|$)")
"""Matches a UTC offset whose minutes are 60 or more, which Python accepts."""

Command = Callable[..., Any]


def print_json(*values: Any) -> None:
    """Print each value as one line of JSON."""
    for value in values:
        click.echo(json.dumps(value, separators=(",", ":")))


class JobId(click.ParamType[Any]):
    """A job's id: a UUID, or its last 8 characters as a string; see `find_job`."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID | str:
        """Return the id. Fails if it is neither."""
        if re.fullmatch("[0-9A-Fa-f]{8}", value):
            return str(value).lower()
        try:
            return UUID(value)
        except ValueError:
            self.fail(f"{value!a} is neither a job's id nor the last 8 characters of one", param, ctx)


def find_job(given: UUID | str) -> UUID:
    """Return the whole id. Raises JobNotFound if no job, or more than one, has these last characters."""
    return given if isinstance(given, UUID) else jobs.find_by_id_end(given)


class Word(click.ParamType[Any]):
    """A name or tag as the API accepts it; not empty by default, since that would not filter at all."""

    name = "text"

    def __init__(self, least: int = 1, most: int = 255) -> None:
        self._least, self._most = least, most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Fails if the API would not accept it."""
        if not self._least <= len(value) <= self._most:
            self.fail(f"must have {self._least} to {self._most} characters", param, ctx)
        try:
            value.encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8 arrive as lone surrogates
            self.fail("must be UTF-8", param, ctx)
        return str(value)


class Json(click.ParamType[Any]):
    """A JSON value, parsed as the API parses a request's body."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value. Fails if it is not JSON, or larger than a request's body may be."""
        raw = os.fsencode(value)
        if len(raw) > settings().JOBSVC_MAX_BODY_BYTES:
            self.fail(f"has more than JOBSVC_MAX_BODY_BYTES={settings().JOBSVC_MAX_BODY_BYTES}", param, ctx)
        try:
            return strict_json.parse(raw)
        except strict_json.NotJson as error:
            self.fail(f"is not JSON: {error}", param, ctx)


class PayloadPart(click.ParamType[Any]):
    """A JSON object that payloads contain, as in the query of GET /jobs."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the object. Fails if the API would not accept it."""
        try:
            return read_payload(os.fsencode(value).decode())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[Any]):
    """A time, or an age such as 90s, 15m, 2h or 7d."""

    name = "time"
    UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time in UTC; a time without an offset is local."""
        try:
            if age := re.fullmatch(r"([0-9]+)([smhd])", value):
                moment = current_time() - timedelta(**{self.UNITS[age[2]]: int(age[1])})
            else:
                moment = datetime.fromisoformat(value).astimezone(UTC)
            if _WRONG_OFFSET.search(value) or not 1970 <= moment.year < 9999:
                raise ValueError
        except (ValueError, OverflowError):
            self.fail(f"{value!a} is not a time like 2030-01-31T12:00, nor an age like 90s, 15m, 2h or 7d", param, ctx)
        return moment


class Length(click.ParamType[Any]):
    """A length of time such as 90s, 15m, 2h or 7d, as whole seconds from 1 to `longest`."""

    name = "length"

    def __init__(self, longest: int) -> None:
        self.longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds. Fails if it is no such length."""
        length = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value))
        found = int(length[1]) * int(timedelta(**{Moment.UNITS[length[2]]: 1}).total_seconds()) if length else 0
        if not 1 <= found <= self.longest:
            longest = f"{self.longest // 86400}d"
            self.fail(f"{value!a} is not a length like 90s, 15m or 2h, and at most {longest}", param, ctx)
        return found


_FILTERS = {
    "statuses": click.option(
        "--status",
        "statuses",
        type=click.Choice([*Status], case_sensitive=False),
        multiple=True,
        metavar="STATUS",
        help="Such as FAILED; repeat it for any of several.",
    ),
    "type": click.option("--type", type=Word()),
    "queue": click.option("--queue", type=Word()),
    "tags": click.option("--tag", "tags", type=Word(), multiple=True, help="Repeat it for all of several."),
    "created_after": click.option(
        "--after", "created_after", type=Moment(), help="Created then or later, e.g. 2h ago: --after 2h."
    ),
    "created_before": click.option(
        "--before", "created_before", type=Moment(), help="Created before then, e.g. --before 2030-01-31T12:00."
    ),
    "error_type": click.option("--error-type", type=Word(most=MAX_ERROR), help="Type of the last error."),
    "error": click.option(
        "--error",
        type=Word(least=0, most=MAX_ERROR),
        help=f"First line of the last error's message, at most {MAX_ERROR} characters; all of it.",
    ),
    "payload": click.option(
        "--payload", type=PayloadPart(), metavar="JSON", help='Payloads that contain it, e.g. {"to": "a@example.com"}.'
    ),
    "depends_on": click.option("--depends-on", type=JobId(), metavar="ID", help="Jobs that depend on this one."),
}
"""The filter options by the field of `Filter` that they set."""


def add(command: Command, options: Iterable[Callable[[Command], Command]]) -> Command:
    for option in reversed(list(options)):
        command = option(command)
    return command


def filters(command: Command) -> Command:
    """Add the filter options to a command, which gets the filter as `which`."""

    @wraps(command)
    def run(**given: Any) -> Any:
        chosen = {field: given.pop(field) for field in _FILTERS}
        chosen["depends_on"] = chosen["depends_on"] and find_job(chosen["depends_on"])
        return command(which=Filter(**chosen), **given)

    return add(run, _FILTERS.values())


of_type = click.option("--type", "type_", type=Word())
of_queue = click.option("--queue", type=Word())
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


def on_jobs(command: Command) -> Command:
    """Add the arguments and options of a command that acts on given jobs, or on all that match a filter."""
    ids = click.argument("given", metavar="[ID]...", nargs=-1, type=JobId())
    yes = click.option("--yes", is_flag=True, help="Don't ask before acting on all matching jobs.")
    return ids(filters(yes(as_json(command))))
