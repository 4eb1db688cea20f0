"""Jobs of a worker's own types that other workers refused, since they have no handlers of these types."""

import time
from collections.abc import Sequence
from contextlib import suppress

from jobsvc import handlers, jobs
from jobsvc.errors import StoreUnavailable

CHECK_SECONDS = 1.0
"""Pause between two checks that find nothing: the only cost for a worker of jobs that it can't run."""

MOST = 100
"""Most jobs of one queue that a check counts and that are claimed at once."""


class WithheldJobs:
    """The withheld jobs that one worker may start, as of its last query of Postgres."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._next_check = 0.0

    def count(self, queues: Sequence[str]) -> dict[str, int]:
        """Return how many wait in each queue, up to MOST; queries Postgres at most once in CHECK_SECONDS.

        Empty while Postgres is unavailable.
        """
        if time.monotonic() >= self._next_check:
            self._next_check = time.monotonic() + CHECK_SECONDS
            self._waiting = {}
            with suppress(StoreUnavailable):
                self._waiting = jobs.count_awaiting(queues, handlers.types(), MOST)
        return self._waiting

    def claim(self, queue: str, most: int) -> list[str]:
        """Claim up to `most` of them, the longest due first; the caller must start them next."""
        wanted = min(most, self._waiting.get(queue, 0))
        if wanted <= 0:
            return []
        claimed: list[str] = []
        with suppress(StoreUnavailable):
            claimed = [str(job_id) for job_id in jobs.claim_awaiting([queue], handlers.types(), wanted)]
        self._waiting[queue] -= len(claimed)
        if len(claimed) < wanted:  # other workers were quicker
            del self._waiting[queue]
        elif not self._waiting[queue]:  # there may be more
            self._next_check = 0.0
        return claimed
