"""The ends of attempts, until Postgres has them and RQ shows them: many at a time, and whichever server is away."""

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
"""Ends are stored when there are so many, when one is so old, or when nothing else runs."""


class Completer:
    """What ended and is not stored yet, and what was stored and is not shown yet. `show` may raise RedisError."""

    def __init__(self, postgres: OutageTracker, show: Callable[[list[FinishedAttempt]], None]) -> None:
        self._postgres, self._show = postgres, show
        self._ended: list[FinishedAttempt] = []
        self._stored: list[FinishedAttempt] = []
        self._first = self._next_flush = self._next_show = 0.0
        self._show_pauses = Backoff()

    def hurry(self) -> None:
        """Try again now what failed: the process is about to end."""
        self._next_flush = 0.0

    def __bool__(self) -> bool:
        return bool(self._ended or self._stored)

    @property
    def not_stored(self) -> list[RunningJob]:
        """The jobs that have ended, which Postgres doesn't know yet. From any thread."""
        return [one.held for one in list(self._ended)]

    def add(self, ended: FinishedAttempt) -> None:
        """This attempt has ended."""
        self._first = self._first if self._ended else time.monotonic()
        self._ended.append(ended)

    def due_at(self, is_idle: bool) -> float:
        """When (monotonic seconds) to flush: at once if nothing else is held, never if there is nothing to store."""
        if not self._ended:
            return math.inf
        is_due = is_idle or len(self._ended) >= FLUSH_AT
        return max(0.0 if is_due else self._first + FLUSH_SECONDS, self._next_flush)

    def flush(self) -> list[FinishedAttempt]:
        """Store what has ended; returns it with its verdicts, or nothing while Postgres is away."""
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
        """Show what was stored; what RQ shows of the rest, after the last try, expires, or is put right by a sweep."""
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
