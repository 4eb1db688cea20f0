"""The commands that show jobs and queues. They import rich only to draw, since the API loads this module too."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any
from uuid import UUID

import click

from jobsvc import jobs
from jobsvc.cli import follow, options
from jobsvc.cli.options import print_json
from jobsvc.config import settings
from jobsvc.db.models import Job
from jobsvc.jobs import Filter, JobSummary
from jobsvc.jobs.serialize import dump_attempts, dump_job

PAGE = 200


@click.command("list")
@options.filters
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@options.as_json
def list_jobs(which: Filter, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    found = islice(_walk(which, min(limit, PAGE)), limit)
    if as_json:
        for job in found:
            print_json(dump_job(job))
    else:
        from jobsvc.cli import render

        render.console().print(render.table(list(found)))


def _walk(which: Filter, size: int) -> Iterator[Job]:
    page = jobs.page(which, size)
    yield from page.jobs
    while page.next:
        page = jobs.page(which, size, page.next)
        yield from page.jobs


@click.command()
@click.argument("job_id", metavar="ID", type=click.UUID)
@options.as_json
def show(job_id: UUID, as_json: bool) -> None:
    """Show a job, with its attempts and what they said."""
    job, ended, lines = jobs.full_history(job_id)
    whole, attempts = dump_job(job), dump_attempts(job, ended, lines)
    if as_json:
        print_json({"job": whole, "attempts": attempts})
    else:
        from jobsvc.cli import render

        render.show(whole, attempts)


@click.command()
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
                    print_json(_dump_move(before, job))
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


@click.command()
@click.option("--minutes", type=click.IntRange(1, 1440), default=1, show_default=True, help="The time to look back on.")
@options.as_json
def stats(minutes: int, as_json: bool) -> None:
    """Count what waits, runs and failed in each queue, and tell how fast the types of jobs go."""
    served = settings().JOBSVC_QUEUES
    queues, paces = jobs.queue_states(served), jobs.type_stats(served, minutes * 60)
    if as_json:
        print_json(
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
