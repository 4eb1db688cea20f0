"""Arguments and options of the commands that send a job's fields, named as in the API."""

from collections.abc import Sequence
from functools import wraps
from typing import Any

import click

from jobsvc.cli.options import Command, JobId, Json, add, find_job

RETRY_HELP = 'E.g. {"max": 3, "interval": [1, 5]}, or {"backoff": {"initial": 1}} for intervals that grow.'


def job_fields(command: Command) -> Command:
    """Add the arguments and options of POST /jobs to a command, which gets the request's body as `body`."""

    @wraps(command)
    def run(**given: Any) -> Any:
        body = {field: given.pop(field) for field in _FIELDS}
        body["tags"] = list(body["tags"])
        body["dependsOn"] = [str(find_job(one)) for one in body["dependsOn"]] or None
        given_fields = {field: value for field, value in body.items() if value is not None or field == "payload"}
        return command(body=given_fields, **given)

    return add(run, _FIELDS.values())


_FIELDS = {
    "type": click.argument("type"),
    "payload": click.argument("payload", type=Json(), default="{}"),
    "queue": click.option("--queue"),
    "delay": click.option("--delay", type=Json(), metavar="SECONDS", help="Start it that much later."),
    "runAt": click.option("--run-at", "runAt", metavar="TIME", help="Start it then, e.g. 2030-01-31T12:00:00Z."),
    "retry": click.option("--retry", type=Json(), metavar="JSON", help=RETRY_HELP),
    "timeout": click.option("--timeout", type=Json(), metavar="SECONDS", help="Time limit of one attempt."),
    "expiresIn": click.option("--expires-in", "expiresIn", type=Json(), metavar="SECONDS", help="Latest first start."),
    "uniqueKey": click.option("--unique-key", "uniqueKey", help="At most one unfinished job of the type has it."),
    "onConflict": click.option(
        "--on-conflict",
        "onConflict",
        metavar="return|reject|replace",
        help="What to do if another unfinished job has the unique key.",
    ),
    "tags": click.option("--tag", "tags", multiple=True, help="Repeat it for several."),
    "concurrencyKey": click.option("--concurrency-key", "concurrencyKey", help="Limits jobs that run at once."),
    "concurrencyLimit": click.option(
        "--concurrency-limit",
        "concurrencyLimit",
        type=Json(),
        metavar="N",
        help="Jobs with the key that may run at once.",
    ),
    "rateLimit": click.option(
        "--rate-limit",
        "rateLimit",
        type=Json(),
        metavar="JSON",
        help='Limits starts in a time, e.g. {"key": "smtp", "limit": 100, "per": 60}.',
    ),
    "dependsOn": click.option(
        "--depends-on",
        "dependsOn",
        type=JobId(),
        multiple=True,
        metavar="ID",
        help="Job that must complete first; repeat it for several.",
    ),
    "onDependencyFailure": click.option(
        "--on-dependency-failure",
        "onDependencyFailure",
        metavar="cancel|run",
        help="What to do if a dependency fails or is cancelled.",
    ),
    "webhookUrl": click.option("--webhook-url", "webhookUrl", metavar="URL", help="Called when the job has ended."),
}
"""The arguments and options of `enqueue` by the field of POST /jobs that they set."""

_PATCHED = ("queue", "delay", "runAt", "retry", "timeout", "expiresIn", "tags")


def patch_fields(command: Command) -> Command:
    """Add the options of PATCH /jobs/:id to a command, which gets the request's body as `body`."""

    @wraps(command)
    def run(reset: Sequence[str], **given: Any) -> Any:
        body = {field: given.pop(field) for field in (*_PATCHED, "payload")}
        body["tags"] = list(body["tags"]) or None
        changes = {field: value for field, value in body.items() if value is not None}
        changes |= {field: [] if field == "tags" else None for field in reset}
        return command(body=changes, **given)

    payload = click.option("--payload", type=Json(), metavar="JSON", help="The whole new payload.")
    reset = click.option(
        "--reset",
        type=click.Choice(_PATCHED),
        multiple=True,
        metavar="FIELD",
        help=f"Take the default of a new job: {', '.join(_PATCHED)}.",
    )
    return add(run, [payload, *(_FIELDS[field] for field in _PATCHED), reset])
