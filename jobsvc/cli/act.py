"""The commands that change jobs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import click

from jobsvc import jobs
from jobsvc.api.submit import relay
from jobsvc.cli import options
from jobsvc.cli.options import print_json
from jobsvc.errors import JobNotFound, UniqueKeyTaken, WrongState
from jobsvc.jobs import Filter
from jobsvc.states import Status

MOST_COUNTED = 10_000


class _Action(NamedTuple):
    verb: str
    one: Callable[[UUID], None]
    all_of: Callable[[Filter], Iterator[int]]
    how_many: Callable[[Filter, int], int]


def _retry(job_id: UUID) -> None:
    relay().wake([jobs.retry(job_id)[1]])


def _retry_all(which: Filter) -> Iterator[int]:
    for batch in jobs.retry_all(which):
        relay().wake(batch)
        yield len(batch)


def _cancel(job_id: UUID) -> None:
    _withdraw({job_id: Status(jobs.cancel(job_id).status)})


def _cancel_all(which: Filter) -> Iterator[int]:
    for batch in jobs.cancel_all(which):
        _withdraw(batch)
        yield len(batch)


def _withdraw(batch: dict[UUID, Status]) -> None:
    relay().withdraw(job_id for job_id, status in batch.items() if status == Status.CANCELLED)


@click.command()
@options.on_jobs
def retry(**given: Any) -> None:
    """Have jobs that failed or were cancelled tried again at once: these, or all that the options mean."""
    _act(_Action("retry", _retry, _retry_all, jobs.count_retryable), **given)


@click.command()
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
        relay().settle()
        done += count
    _tell_done(action, done, as_json)
    if job_ids and done < len(set(job_ids)):
        sys.exit(1)


def _tell_done(action: _Action, done: int, as_json: bool) -> None:
    if as_json:
        print_json({"count": done})
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
