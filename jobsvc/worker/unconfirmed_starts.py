"""Reverts starts whose commit succeeded but whose reply was lost."""

from collections.abc import Callable, Collection, Iterable, Sequence
from uuid import UUID

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.jobs import StartedAttempt
from jobsvc.servers.outages import OutageTracker


class UnconfirmedStarts:
    """Starts by one worker, whose name in RQ is `worker`. Main thread only.

    types, queues: return the job types that the worker can run, and the queues that it serves; None for all.
    """

    def __init__(
        self,
        postgres: OutageTracker,
        worker: str,
        types: Callable[[], Collection[str] | None] = lambda: None,
        queues: Callable[[], Collection[str] | None] = lambda: None,
    ) -> None:
        self._postgres, self._worker, self._types, self._queues = postgres, worker, types, queues
        self._unconfirmed: list[UUID] = []

    @property
    def has_unconfirmed(self) -> bool:
        """Return True if there is something to undo."""
        return bool(self._unconfirmed)

    def start(self, job_ids: Sequence[UUID], confirmed: Iterable[UUID]) -> list[StartedAttempt] | None:
        """Start jobs as `jobs.start` does; None while Postgres is unavailable: `undo` reverts such starts.

        confirmed: ids of jobs that this worker has already, whose start was confirmed.
        """
        if self.undo():
            with self._postgres:
                lease = settings().JOBSVC_LEASE_SECONDS
                return jobs.start(job_ids, self._worker, lease, self._types(), self._queues())
            self._unconfirmed = list(set(job_ids).difference(confirmed))
        return None

    def undo(self) -> bool:
        """Return unconfirmed starts uncounted; returns True if none is left."""
        if self._unconfirmed:
            with self._postgres:
                jobs.undo_starts(self._unconfirmed, self._worker)
                self._unconfirmed = []
        return not self._unconfirmed
