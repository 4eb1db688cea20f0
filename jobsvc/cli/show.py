"""The commands that show jobs, queues, workers, schedules and types."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import click

from jobsvc import handlers, jobs
from jobsvc.api.explain import explain
from jobsvc.api.job_types_reply import dump_job_type
from jobsvc.api.responses import dump_queue, dump_worker
from jobsvc.api.stats_reply import dump_numbers
from jobsvc.cli import options, poll, render
from jobsvc.cli.options import find_job, print_json
from jobsvc.config import settings
from jobsvc.db.models import Job
from jobsvc.dispatch import rq_workers
from jobsvc.jobs import Filter, JobSummary
from jobsvc.jobs.serialize import dump_attempts, dump_job, dump_schedule

PAGE = 200
"""Number of jobs that `list` reads at once."""

T = TypeVar("T")


def _print(found: Sequence[T], draw: Callable[[Sequence[T]], None], as_json: bool) -> None:
    if as_json:
        print_json(*found)
    else:
        draw(found)


@click.command("list")
@options.filters
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    metavar="N",
    help="Number of jobs shown.  [default: 50]",
)
@options.as_json
def list_jobs(which: Filter, limit: int, as_json: bool) -> None:
    """List jobs, the newest first.

    A job's id is shown by its last 8 characters; with --json as a whole.
    """
    found = islice(_pages(which, min(limit, PAGE)), limit)
    if as_json:
        for job in found:
            print_json(dump_job(job))
    else:
        render.print_jobs(list(found))


def _pages(which: Filter, size: int) -> Iterator[Job]:
    page = jobs.page(which, size)
    yield from page.jobs
    while page.next:
        page = jobs.page(which, size, page.next)
        yield from page.jobs


@click.command(epilog=options.ID_HELP)
@click.argument("given", metavar="ID", type=options.JobId())
@options.as_json
def show(given: UUID | str, as_json: bool) -> None:
    """Show a job with its attempts and their logs."""
    job, ended, lines = jobs.history(find_job(given))
    whole, attempts = dump_job(job), dump_attempts(job, ended, lines)
    if as_json:
        print_json({"job": whole, "attempts": attempts})
    else:
        render.print_job(whole, attempts)


@click.command("explain", epilog=options.ID_HELP)
@click.argument("given", metavar="ID", type=options.JobId())
@options.as_json
def explain_job(given: UUID | str, as_json: bool) -> None:
    """Explain why a job waits, since when it runs, or how it ended."""
    found = explain(find_job(given))
    if as_json:
        print_json(found)
    else:
        render.print_explanation(found)


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(0, poll.WINDOW),
    default=10,
    metavar="N",
    help="Number of jobs shown at first.  [default: 10]",
)
@options.as_json
def tail(limit: int, as_json: bool) -> None:
    """Follow the newest jobs until Ctrl-C.

    At a terminal this is a live view, else a line for each change. Jobs are polled twice a second: of several changes
    between two polls only the last one is shown.
    """
    with suppress(KeyboardInterrupt):
        if not as_json and render.is_live():
            render.run_live_view(poll.polls())
        for number, (_, changes) in enumerate(poll.polls()):
            for before, job in reversed(changes if number else changes[:limit]):
                if as_json:
                    print_json(_dump_change(before, job))
                else:
                    click.echo(render.format_change(before, job))


def _dump_change(before: JobSummary | None, job: JobSummary) -> dict[str, Any]:
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


@click.command()
@click.option(
    "--window",
    type=options.Length(jobs.LONGEST_SECONDS),
    default="1h",
    metavar="LENGTH",
    help="Such as 15m, 2h or 7d, to now.  [default: 1h]",
)
@options.of_type
@options.of_queue
@options.as_json
def stats(window: int, type_: str | None, queue: str | None, as_json: bool) -> None:
    """Show job counts per queue, and counts and durations per type.

    The counts per type are those of GET /stats, and cover the window in whole minutes, or quarters of an hour for more
    than two hours. Durations are estimates: the median and the 95th percentile.
    """
    queues = [one for one in jobs.queue_states(settings().JOBSVC_QUEUES) if queue in (None, one.name)]
    types = jobs.read_history(window, jobs.step_unit(window), type_=type_, queue=queue, by=["type"]).series
    if as_json:
        shown = [{"type": one.type, **dump_numbers(one.whole)} for one in types]
        print_json({"queues": [*map(dump_queue, queues)], "window": window, "types": shown})
    else:
        render.print_queues(queues)
        render.print_type_stats(types)


@click.command()
@options.as_json
def workers(as_json: bool) -> None:
    """List the workers that are registered in Redis."""
    _print([dump_worker(worker) for worker in rq_workers.known()], render.print_workers, as_json)


@click.command()
@options.as_json
def schedules(as_json: bool) -> None:
    """List the schedules, by name."""
    _print([dump_schedule(schedule) for schedule in jobs.schedules.every()], render.print_schedules, as_json)


@click.command()
@options.as_json
def types(as_json: bool) -> None:
    """List the job types and their defaults."""
    found = [dump_job_type(handler) for name in handlers.names() if (handler := handlers.find(name))]
    _print(found, render.print_types, as_json)
