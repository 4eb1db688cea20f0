"""The commands that show jobs, queues, workers, schedules and types."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import click

from jobsvc import handlers, jobs
from jobsvc.api.explain import explain
from jobsvc.api.responses import dump_job_type, dump_queue, dump_worker
from jobsvc.cli import options, poll, render
from jobsvc.cli.options import find_job, print_json
from jobsvc.config import settings
from jobsvc.db.models import Job
from jobsvc.dispatch import rq_workers
from jobsvc.jobs import Filter, JobSummary, TypeStats
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
    "--minutes",
    type=click.IntRange(1, 1440),
    default=1,
    metavar="N",
    help="Length of the period that ends now.  [default: 1]",
)
@options.as_json
def stats(minutes: int, as_json: bool) -> None:
    """Show job counts per queue, and rates and durations per type."""
    served = settings().JOBSVC_QUEUES
    queues, types = jobs.queue_states(served), jobs.type_stats(served, minutes * 60)
    if as_json:
        shown = {"queues": [*map(dump_queue, queues)], "minutes": minutes, "types": [*map(_dump_type_stats, types)]}
        print_json(shown)
    else:
        render.print_stats(queues, types, minutes)


def _dump_type_stats(stats: TypeStats) -> dict[str, Any]:
    return {
        "name": stats.type,
        "started": stats.started,
        "completed": stats.completed,
        "failed": stats.failed,
        "meanSeconds": stats.mean,
        "longestSeconds": stats.longest,
    }


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
