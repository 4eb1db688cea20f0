"""Buffer of attempt results until Postgres stores and RQ shows them, in batches and across outages."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from redis import RedisError

from jobsvc.execution.rq_entry import store, tell_all
from jobsvc.servers.outages import Backoff, OutageTracker
from jobsvc.worker.running import FinishedAttempt, RunningJob

logger = logging.getLogger("jobsvc.worker")

FLUSH_AT, FLUSH_SECONDS = 100, 0.003
"""Flush when this many results are buffered, when the oldest is this old (seconds), or when the worker is idle."""


class Completer:
    """Results not stored yet, and stored ones that RQ doesn't show yet. `show` may raise RedisError."""

    def __init__(self, postgres: OutageTracker, show: Callable[[list[FinishedAttempt]], None]) -> None:
        self._postgres, self._show = postgres, show
        self._ended: list[FinishedAttempt] = []
        self._stored: list[FinishedAttempt] = []
        self._first = self._next_flush = self._next_show = 0.0
        self._show_pauses = Backoff()

    def hurry(self) -> None:
        """Retry a failed flush now: the process is about to end."""
        self._next_flush = min(self._next_flush, time.monotonic())

    def __bool__(self) -> bool:
        return bool(self._ended or self._stored)

    @property
    def not_stored(self) -> list[RunningJob]:
        """Return the jobs whose results are not stored in Postgres yet. From any thread."""
        return [one.held for one in list(self._ended)]

    def add(self, ended: FinishedAttempt) -> None:
        """Add the result of an attempt."""
        self._first = self._first if self._ended else time.monotonic()
        self._ended.append(ended)

    def due_at(self, is_idle: bool) -> float:
        """Return when (monotonic seconds) to flush: 0 for at once, infinity if there is nothing to store."""
        if not self._ended:
            return math.inf
        is_due = is_idle or len(self._ended) >= FLUSH_AT
        return max(0.0 if is_due else self._first + FLUSH_SECONDS, self._next_flush)

    def flush(self) -> list[FinishedAttempt]:
        """Store the buffered results; returns them with their transitions, [] while Postgres is unavailable."""
        stored = None
        with self._postgres:
            stored = store([one.end for one in self._ended])
        if stored is None:
            if not self._next_flush:
                logger.warning("%s: its outcome waits for Postgres, of %d", self._ended[0].end.job_id, len(self._ended))
            self._next_flush = time.monotonic() + self._postgres.pause
            return []
        self._next_flush = 0.0
        pairs = zip(self._ended, stored, strict=True)
        ended = [replace(one, end=end, verdict=verdict) for one, (end, verdict) in pairs]
        tell_all([(one.held.started, one.end, one.verdict) for one in ended])
        self._ended = []
        self._stored += ended
        return ended

    def show(self, is_last_try: bool) -> None:
        """Show stored results in RQ. After a failed last try, RQ's entries expire or a sweep corrects them."""
        if not self._stored or time.monotonic() < self._next_show:
            return
        try:
            self._show(self._stored)
            self._stored = []
            self._show_pauses.reset()
        except RedisError:
            self._next_show = time.monotonic() + self._show_pauses.next()
            if is_last_try:
                self._stored = []
