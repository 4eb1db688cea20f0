"""`flask jobs …`: job commands for people at a terminal, and with `--json` for scripts.

The commands use Postgres, as the API's views do, not the API. rich is imported only where output is drawn, since the
API loads this module too.
"""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import click
from flask import current_app
from psycopg2.errors import InsufficientPrivilege, UndefinedTable
from sqlalchemy.exc import DBAPIError

from jobsvc import jobs
from jobsvc.cli import follow, options
from jobsvc.config import settings
from jobsvc.db.models import Job
from jobsvc.db.pgoutage import cause_of
from jobsvc.dispatch.relay import Relay
from jobsvc.errors import JobNotFound, JobsvcError, StoreUnavailable, UniqueKeyTaken, WrongState
from jobsvc.jobs import Filter, JobSummary
from jobsvc.jobs.serialize import dump_attempts, dump_job
from jobsvc.states import Status

PAGE = 200
MOST_COUNTED = 10_000


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


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, separators=(",", ":")))


@click.group("jobs", cls=_Jobs)
def commands() -> None:
    """Look at jobs, retry and cancel them."""
    _relay().stop()
    logging.getLogger("jobsvc.db").setLevel(logging.ERROR)  # the command's own error has the cause
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # any text of a job can be printed


def _relay() -> Relay:
    found: Relay = current_app.extensions["relay"]
    return found


@commands.command("list")
@options.filters
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@options.as_json
def list_jobs(which: Filter, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    found = islice(_walk(which, min(limit, PAGE)), limit)
    if as_json:
        for job in found:
            _print_json(dump_job(job))
    else:
        from jobsvc.cli import render

        render.console().print(render.table(list(found)))


def _walk(which: Filter, size: int) -> Iterator[Job]:
    page = jobs.page(which, size)
    yield from page.jobs
    while page.next:
        page = jobs.page(which, size, page.next)
        yield from page.jobs


@commands.command()
@click.argument("job_id", metavar="ID", type=click.UUID)
@options.as_json
def show(job_id: UUID, as_json: bool) -> None:
    """Show a job, with its attempts and what they said."""
    job, ended, lines = jobs.full_history(job_id)
    whole, attempts = dump_job(job), dump_attempts(job, ended, lines)
    if as_json:
        _print_json({"job": whole, "attempts": attempts})
    else:
        from jobsvc.cli import render

        render.show(whole, attempts)


class _Action(NamedTuple):
    verb: str
    one: Callable[[UUID], None]
    all_of: Callable[[Filter], Iterator[int]]
    how_many: Callable[[Filter, int], int]


def _retry(job_id: UUID) -> None:
    _relay().wake([jobs.retry(job_id)[1]])


def _retry_all(which: Filter) -> Iterator[int]:
    for batch in jobs.retry_all(which):
        _relay().wake(batch)
        yield len(batch)


def _cancel(job_id: UUID) -> None:
    _withdraw({job_id: Status(jobs.cancel(job_id).status)})


def _cancel_all(which: Filter) -> Iterator[int]:
    for batch in jobs.cancel_all(which):
        _withdraw(batch)
        yield len(batch)


def _withdraw(batch: dict[UUID, Status]) -> None:
    _relay().withdraw(job_id for job_id, status in batch.items() if status == Status.CANCELLED)


@commands.command()
@options.on_jobs
def retry(**given: Any) -> None:
    """Have jobs that failed or were cancelled tried again at once: these, or all that the options mean."""
    _act(_Action("retry", _retry, _retry_all, jobs.count_retryable), **given)


@commands.command()
@options.on_jobs
def cancel(**given: Any) -> None:
    """Call jobs off, these or all that the options mean: one that waits never runs, one that runs is told to stop."""
    _act(_Action("cancel", _cancel, _cancel_all, jobs.count_cancellable), **given)


def _act(action: _Action, job_ids: Sequence[UUID], which: Filter, yes: bool, as_json: bool) -> None:
    """Run the action and print the number of jobs. Exits with 1 if it failed for any of `job_ids`, a line for each."""
    if bool(job_ids) == (which != Filter()):
        raise click.UsageError("say which jobs are meant: either by their ids, or by at least one option")
    if not job_ids and not yes:
        meant = action.how_many(which, MOST_COUNTED)
        if meant == 0:
            _tell_done(action, 0, as_json)
            return
        click.confirm(f"{action.verb} {_jobs(meant)}{' or more' * (meant == MOST_COUNTED)}?", abort=True, err=True)
    done = 0
    for count in _each(action, job_ids) if job_ids else action.all_of(which):
        _relay().settle()
        done += count
    _tell_done(action, done, as_json)
    if job_ids and done < len(set(job_ids)):
        sys.exit(1)


def _tell_done(action: _Action, done: int, as_json: bool) -> None:
    if as_json:
        _print_json({"count": done})
    else:
        click.echo(f"{action.verb}: {_jobs(done) if done else 'nothing to do'}")


def _each(action: _Action, job_ids: Sequence[UUID]) -> Iterator[int]:
    for job_id in dict.fromkeys(job_ids):
        try:
            action.one(job_id)
            yield 1
        except (JobNotFound, WrongState, UniqueKeyTaken) as error:
            click.echo(f"Error: {job_id}: {error}", err=True)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


@commands.command()
@click.option("--limit", type=click.IntRange(min=0, max=follow.WINDOW), default=10, help="Lines to begin with.")
@options.as_json
def tail(limit: int, as_json: bool) -> None:
    """Follow the latest jobs until Ctrl-C: a live view at a terminal, else a line for each move.

    It polls twice a second: of several moves between two polls it shows the last.
    """
    from jobsvc.cli import render

    with suppress(KeyboardInterrupt):
        if not as_json and render.is_live():
            render.live(follow.looks())
        for number, (_, moves) in enumerate(follow.looks()):
            for before, job in reversed(moves if number else moves[:limit]):
                if as_json:
                    _print_json(_dump_move(before, job))
                else:
                    click.echo(render.line(before, job))


def _dump_move(before: JobSummary | None, job: JobSummary) -> dict[str, Any]:
    return {
        "id": str(job.id),
        "type": job.type,
        "queue": job.queue,
        "status": job.status,
        "before": before.status if before else None,
        "attempts": job.attempts,
        "maxAttempts": job.max_attempts,
        "progress": job.progress,
        "error": job.error,
    }


@commands.command()
@click.option("--minutes", type=click.IntRange(1, 1440), default=1, show_default=True, help="The time to look back on.")
@options.as_json
def stats(minutes: int, as_json: bool) -> None:
    """Count what waits, runs and failed in each queue, and tell how fast the types of jobs go."""
    served = settings().JOBSVC_QUEUES
    queues, paces = jobs.queue_states(served), jobs.paces(served, minutes * 60)
    if as_json:
        _print_json(
            {
                "queues": [
                    {
                        "name": one.name,
                        "paused": one.is_paused,
                        "counts": one.counts,
                        "oldestWaitingSeconds": one.oldest_waiting,
                    }
                    for one in queues
                ],
                "minutes": minutes,
                "types": [
                    {
                        "name": one.type,
                        "started": one.started,
                        "completed": one.completed,
                        "failed": one.failed,
                        "meanSeconds": one.mean,
                        "longestSeconds": one.longest,
                    }
                    for one in paces
                ],
            }
        )
    else:
        from jobsvc.cli import render

        render.stats(queues, paces, minutes)
