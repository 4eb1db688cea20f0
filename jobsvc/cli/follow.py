"""Polls the latest jobs, and reports which of them changed in between."""

import time
from collections.abc import Iterator
from uuid import UUID

from jobsvc import jobs
from jobsvc.jobs import JobSummary
from jobsvc.states import ENDED, Status

REFRESH_SECONDS = 0.5

WINDOW = 500
"""Number of newest jobs, and of newest running jobs, that are polled; of jobs seen unfinished, twice as many."""

Move = tuple[JobSummary | None, JobSummary]


def looks() -> Iterator[tuple[list[JobSummary], list[Move]]]:
    """Yield the latest jobs twice a second, and those that changed, each with its previous state, newest first."""
    seen: dict[UUID, JobSummary] = {}
    floor = UUID(int=0)
    while True:
        unfinished = [job for job in seen.values() if job.status not in ENDED]
        unfinished.sort(key=lambda job: job.status != Status.PROCESSING)  # one that starts is seen anyway
        latest = jobs.latest(WINDOW, [job.id for job in unfinished[: 2 * WINDOW]])
        moves = [(seen.get(job.id), job) for job in latest]
        yield latest, [(before, job) for before, job in moves if _is_news(before, job, floor)]
        seen = {job.id: job for job in latest}
        floor = latest[WINDOW - 1].id if len(latest) >= WINDOW else UUID(int=0)
        time.sleep(REFRESH_SECONDS)


def _is_news(before: JobSummary | None, job: JobSummary, floor: UUID) -> bool:
    if before:
        return before.version != job.version
    # An ended job below the window appears only because a newer one was deleted.
    return job.id > floor or job.status not in ENDED
