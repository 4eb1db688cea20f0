"""Starts, of which a worker may miss the answer when Postgres goes away: those are undone before the next."""

from collections.abc import Sequence
from uuid import UUID

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import Started


class Starts:
    """The starts of one worker, RQ's name for which is `worker`. Its main thread's."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._unheard: list[UUID] = []

    def start(self, job_ids: Sequence[UUID]) -> list[Started]:
        """As `jobs.start`. Raises StoreUnavailable; should the jobs have been started then, no attempt is counted."""
        if self._unheard:
            jobs.undo_starts(self._unheard, self._worker)
            self._unheard = []
        try:
            return jobs.start(job_ids, self._worker, settings().JOBSVC_LEASE_SECONDS)
        except StoreUnavailable:
            self._unheard = list(job_ids)
            raise
