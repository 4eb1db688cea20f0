"""The timeline of a job: what has happened, and what is planned."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jobsvc.db.models import Job
from jobsvc.durations import format_duration
from jobsvc.jobs.serialize import AttemptShown
from jobsvc.states import ENDED, WAITING, Status
from jobsvc.ui.formats import Time, moment

MOST_ATTEMPTS = 20
"""Maximum number of attempts shown, the newest."""

MOST_RETRIES = 5
"""Maximum number of planned retries shown."""


class Moment(NamedTuple):
    """A line of the timeline. `at`: None if it depends on what comes before. `kind`: CSS class."""

    at: Time | None
    text: str
    kind: str = ""


def timeline(job: Job, attempts: Sequence[AttemptShown]) -> Iterator[Moment]:
    """Yield what has happened to the job and what is planned, in the order of time."""
    yield Moment(job.created_at, "Created")
    if job.run_at:
        yield Moment(job.run_at, "Requested start")
    if len(attempts) > MOST_ATTEMPTS:
        yield Moment(None, "… earlier attempts")
    yield from map(_attempt, attempts[-MOST_ATTEMPTS:])
    if job.cancel_requested_at and job.status == Status.PROCESSING:
        yield Moment(job.cancel_requested_at, "Cancel requested")
    if job.status in ENDED:
        yield Moment(job.finished_at, f"Ended: {job.status}", job.status.lower())
    else:
        yield from _plan(job)


def _attempt(attempt: AttemptShown) -> Moment:
    started, finished, error = attempt["startedAt"], attempt["finishedAt"], attempt["error"]
    text = f"Attempt {attempt['number']}"
    if not started or not finished:
        return Moment(started, f"{text} is running", "processing")
    took = format_duration((moment(finished) - moment(started)).total_seconds())
    kind = "failed" if error else "completed" if attempt["outcome"] == "completed" else ""
    why = f": {error['type']}" if error else ""
    return Moment(started, f"{text} {attempt['outcome']} after {took}{why}", kind)


def _plan(job: Job) -> Iterator[Moment]:
    left = job.max_attempts - job.attempts
    if job.status in WAITING:
        left -= 1
        then = " once its dependencies have ended" if job.status == Status.BLOCKED else ""
        yield Moment(job.due_at, f"Attempt {job.attempts + 1} is due{then}")
    if left > 0:
        intervals = [format_duration(seconds) for seconds in job.retry_intervals[-left:]]
        more = f", … ({left} in all)" if left > MOST_RETRIES else ""
        yield Moment(None, f"If that fails: again after {', '.join(intervals[:MOST_RETRIES])}{more}")
    if job.expires_at and job.status in WAITING:
        yield Moment(job.expires_at, "Expires unless it has started")
