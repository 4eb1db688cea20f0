"""Polls the newest jobs, and finds which of them changed in between."""

import time
from collections.abc import Iterator
from uuid import UUID

from jobsvc import jobs
from jobsvc.jobs import JobSummary
from jobsvc.states import ENDED, Status

POLL_SECONDS = 0.5

WINDOW = 500
"""Number of newest jobs, and of newest running jobs, that are polled; of jobs seen unfinished, twice as many."""

Change = tuple[JobSummary | None, JobSummary]
"""A job before and after a change; None before if it was not known."""


def polls() -> Iterator[tuple[list[JobSummary], list[Change]]]:
    """Yield the newest jobs twice a second, and those that changed, newest first."""
    seen: dict[UUID, JobSummary] = {}
    floor = UUID(int=0)
    while True:
        unfinished = [job for job in seen.values() if job.status not in ENDED]
        unfinished.sort(key=lambda job: job.status != Status.PROCESSING)  # one that starts is seen anyway
        newest = jobs.latest(WINDOW, [job.id for job in unfinished[: 2 * WINDOW]])
        pairs = [(seen.get(job.id), job) for job in newest]
        yield newest, [(before, job) for before, job in pairs if _is_news(before, job, floor)]
        seen = {job.id: job for job in newest}
        floor = newest[WINDOW - 1].id if len(newest) >= WINDOW else UUID(int=0)
        time.sleep(POLL_SECONDS)


def _is_news(before: JobSummary | None, job: JobSummary, floor: UUID) -> bool:
    if before:
        return before.version != job.version
    # An ended job below the window appears only because a newer one was deleted.
    return job.id > floor or job.status not in ENDED
