"""Buffer of attempt results until Postgres stores and RQ shows them, in batches and across outages."""

import math
import time
from collections.abc import Callable

from redis import RedisError

from jobsvc.execution.results import ResultWriter, log_results
from jobsvc.servers.outages import OutageTracker
from jobsvc.worker.running import FinishedAttempt, RunningJob

FLUSH_AT, FLUSH_SECONDS = 100, 0.003
"""Flush when this many results are buffered, when the oldest is this old (seconds), or when the worker is idle."""


class Completer:
    """Results not stored yet, and stored ones that RQ doesn't show yet. `show` may raise RedisError."""

    def __init__(self, postgres: OutageTracker, show: Callable[[list[FinishedAttempt]], None]) -> None:
        self._postgres, self._writer, self._show = postgres, ResultWriter(postgres), show
        self._unstored: list[FinishedAttempt] = []
        self._stored: list[FinishedAttempt] = []
        self._first = 0.0  # monotonic seconds at which the oldest unstored result was added
        self._redis = OutageTracker("Redis", RedisError)

    @property
    def has_pending(self) -> bool:
        """Return True if a result is not stored in Postgres or not shown in RQ yet."""
        return bool(self._unstored or self._stored)

    @property
    def not_stored(self) -> list[RunningJob]:
        """Return the jobs whose results are not stored in Postgres yet. From any thread."""
        return [one.job for one in list(self._unstored)]

    def add(self, finished: FinishedAttempt) -> None:
        """Add the result of an attempt."""
        self._first = self._first if self._unstored else time.monotonic()
        self._unstored.append(finished)

    def due_at(self, is_idle: bool) -> float:
        """Return when (monotonic seconds) to flush: 0 for at once, infinity if there is nothing to store."""
        if not self._unstored:
            return math.inf
        is_due = is_idle or len(self._unstored) >= FLUSH_AT
        return max(0.0 if is_due else self._first + FLUSH_SECONDS, self._postgres.retry_at)

    def flush(self) -> list[FinishedAttempt]:
        """Store the buffered results; returns them with their transitions, [] while Postgres is unavailable."""
        stored = self._writer.write([one.result for one in self._unstored])
        if stored is None:
            return []
        pairs = zip(self._unstored, stored, strict=True)
        finished = [FinishedAttempt(one.job, result, one.seconds, transition) for one, (result, transition) in pairs]
        log_results([(one.job.started, one.result, one.transition) for one in finished])
        self._unstored = []
        self._stored += finished
        return finished

    def show(self, is_last_try: bool) -> None:
        """Show stored results in RQ. After a failed last try, RQ's entries expire or a sweep corrects them."""
        if not self._stored or not self._redis.is_worth_a_try():
            return
        with self._redis:
            self._show(self._stored)
            self._stored = []
        if is_last_try:
            self._stored = []
