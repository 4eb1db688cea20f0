"""Starts, of which a worker may miss the answer when Postgres goes away: those are undone when it is back."""

from collections.abc import Callable, Collection, Iterable, Sequence
from uuid import UUID

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.jobs import StartedAttempt
from jobsvc.servers.outages import OutageTracker


class UnconfirmedStarts:
    """The starts of one worker, RQ's name for which is `worker`. Its main thread's.

    types: returns the job types that the worker can run; without it, any are started.
    """

    def __init__(
        self, postgres: OutageTracker, worker: str, types: Callable[[], Collection[str] | None] = lambda: None
    ) -> None:
        self._postgres, self._worker, self._types = postgres, worker, types
        self._unheard: list[UUID] = []

    def __bool__(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._unheard)

    def start(self, job_ids: Sequence[UUID], held: Iterable[UUID]) -> list[StartedAttempt] | None:
        """As `jobs.start`, None while Postgres is away: what was started all the same is put back by `undo`.

        `held` are the jobs that this worker holds already, of whose start it has heard.
        """
        if self.undo():
            with self._postgres:
                return jobs.start(job_ids, self._worker, settings().JOBSVC_LEASE_SECONDS, self._types())
            self._unheard = list(set(job_ids).difference(held))
        return None

    def undo(self) -> bool:
        """Put back, uncounted, what was started and not heard of; returns whether nothing of it is left."""
        if self._unheard:
            with self._postgres:
                jobs.undo_starts(self._unheard, self._worker)
                self._unheard = []
        return not self._unheard
