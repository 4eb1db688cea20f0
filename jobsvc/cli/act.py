"""The commands that change jobs and queues."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

import click

from jobsvc import jobs
from jobsvc.api import actions
from jobsvc.api.patch_job import PatchJob
from jobsvc.api.requests import JobRequest
from jobsvc.api.submit import relay, submit
from jobsvc.api.validation import known_queue, read
from jobsvc.cli import options, render
from jobsvc.cli.body_options import job_fields, patch_fields
from jobsvc.cli.options import find_job, print_json
from jobsvc.db.models import Job
from jobsvc.errors import JobNotFound, UniqueKeyTaken, WrongState
from jobsvc.jobs import Filter
from jobsvc.jobs.serialize import dump_job
from jobsvc.states import ENDED, Status

MOST_COUNTED = 10_000
"""Number of jobs up to which a command counts the matching ones before it asks."""

POLL_SECONDS = 0.2
"""Seconds between two checks whether a job has ended."""


@click.command(epilog="Example: enqueue TEST_JOB '{\"durationMs\": 500}' --delay 10 --tag nightly")
@job_fields
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for its end, and show it.")
@options.as_json
def enqueue(body: dict[str, Any], wait: float | None, as_json: bool) -> None:
    """Enqueue a job, as POST /jobs does, and print its id.

    TYPE is a job type, PAYLOAD a JSON object. With --wait the exit status is 1 unless the job is COMPLETED.
    """
    [job] = submit([read(JobRequest, body).resolve()])
    if not as_json:
        click.echo(str(job.job_id))
    ended = None
    try:
        relay().finish_pending()
        ended = None if wait is None else _wait(job.job_id, wait)
    finally:  # the job is accepted even if the wait fails
        if as_json:
            print_json(dump_job(ended) if ended else {"jobId": str(job.job_id)})
    if ended and not as_json:
        render.print_job(dump_job(ended), [])
    if wait is not None and (ended is None or ended.status != Status.COMPLETED):
        sys.exit(1)


def _wait(job_id: UUID, seconds: float) -> Job | None:
    """Return the job once it has ended, None if it has not after so many seconds."""
    deadline = time.monotonic() + seconds
    while (job := jobs.get(job_id)).status not in ENDED:
        if not time.monotonic() < deadline:  # NaN is no wait either
            return None
        time.sleep(POLL_SECONDS)
    return job


class _Action(NamedTuple):
    verb: str
    one: Callable[[UUID], object]
    all_of: Callable[[Filter], Iterator[int]]
    how_many: Callable[[Filter, int], int]


@click.command(epilog=options.ID_HELP)
@options.on_jobs
def retry(given: Sequence[UUID | str], which: Filter, yes: bool, as_json: bool) -> None:
    """Retry jobs that are FAILED or CANCELLED, at once.

    Give their ids, or at least one option: then all matching jobs are retried.
    """
    action = _Action("retry", actions.retry, actions.retry_all, jobs.count_retryable)
    _act(action, given, which, yes=yes, as_json=as_json)


@click.command(epilog=options.ID_HELP)
@click.argument("given", metavar="ID", type=options.JobId())
@patch_fields
@options.as_json
def update(given: UUID | str, body: dict[str, Any], as_json: bool) -> None:
    """Change a waiting job, as PATCH /jobs/:id does.

    What the options don't give stays as it is.
    """
    job = actions.update(find_job(given), read(PatchJob, body))
    relay().finish_pending()
    if as_json:
        print_json(dump_job(job))
    else:
        click.echo("update: 1 job")


@click.command(epilog=options.ID_HELP)
@options.on_jobs
def cancel(given: Sequence[UUID | str], which: Filter, yes: bool, as_json: bool) -> None:
    """Cancel waiting and running jobs.

    Give their ids, or at least one option: then all matching jobs are cancelled. A waiting job is cancelled at once,
    the attempt of a running one is stopped within seconds.
    """
    action = _Action("cancel", actions.cancel, actions.cancel_all, jobs.count_cancellable)
    _act(action, given, which, yes=yes, as_json=as_json)


@click.command(epilog=options.ID_HELP)
@options.on_jobs
def delete(given: Sequence[UUID | str], which: Filter, yes: bool, as_json: bool) -> None:
    """Delete jobs that have ended, with their attempts.

    Give their ids, or at least one option: then all matching jobs that have ended are deleted.
    """
    action = _Action("delete", actions.delete, actions.delete_all, jobs.count_removable)
    _act(action, given, which, yes=yes, as_json=as_json)


def _act(action: _Action, given: Sequence[UUID | str], which: Filter, yes: bool, as_json: bool) -> None:
    """Run the action on the given jobs or on all that match, and print the number of changed jobs."""
    if bool(given) == (which != Filter()):
        raise click.UsageError("give either ids or at least one option that selects jobs")
    if not given and replace(which, payload=None) == Filter():
        raise click.UsageError("give another option that selects jobs besides --payload")
    if given:
        _act_on_each(action.verb, action.one, given, as_json)
    else:
        _act_on_all(action, which, yes, as_json)


def _act_on_each(verb: str, act: Callable[[UUID], object], given: Sequence[UUID | str], as_json: bool) -> None:
    """Act on these jobs. Exits with 1 if it failed for any, after an error line for each."""
    done: set[UUID] = set()
    has_failed = False
    for one in dict.fromkeys(given):
        try:
            job_id = find_job(one)
            if job_id not in done:
                act(job_id)
                done.add(job_id)
                relay().finish_pending()
        except (JobNotFound, WrongState, UniqueKeyTaken) as error:
            has_failed = True
            click.echo(f"Error: {one}: {error}", err=True)
    _print_count(verb, len(done), as_json)
    if has_failed:
        sys.exit(1)


def _act_on_all(action: _Action, which: Filter, yes: bool, as_json: bool) -> None:
    count = 1 if yes else action.how_many(which, MOST_COUNTED)
    if count and not yes:
        more = " or more" if count == MOST_COUNTED else ""
        click.confirm(f"{action.verb} {_jobs(count)}{more}?", abort=True, err=True)
    done = 0
    for changed in action.all_of(which) if count else ():
        relay().finish_pending()
        done += changed
    _print_count(action.verb, done, as_json, none="no job matches")


def _print_count(verb: str, done: int, as_json: bool, none: str = "0 jobs") -> None:
    if as_json:
        print_json({"count": done})
    else:
        click.echo(f"{verb}: {_jobs(done) if done else none}")


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


@click.command()
@click.argument("queue")
def pause(queue: str) -> None:
    """Pause a queue: its running jobs continue, no others start."""
    jobs.pause(known_queue(queue))
    click.echo(f"pause: {queue}")


@click.command()
@click.argument("queue")
def resume(queue: str) -> None:
    """Resume a paused queue.

    The next sweep of the service dispatches its jobs, within JOBSVC_SWEEP_SECONDS.
    """
    jobs.resume(known_queue(queue))
    click.echo(f"resume: {queue}")
