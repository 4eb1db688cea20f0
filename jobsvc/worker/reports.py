"""Buffer of reports on a worker's running attempts; stored at intervals, by one statement for all."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

from jobsvc import jobs
from jobsvc.errors import StoreUnavailable
from jobsvc.execution.attempt import with_lines
from jobsvc.jobs import AttemptResult, Chunk, StartedAttempt
from jobsvc.jobs.log_lines import NO_LINES, Lines, Portions, join
from jobsvc.servers.outages import OutageTracker
from jobsvc.worker.running import RunningJob

logger = logging.getLogger("jobsvc.worker")

PROGRESS_SECONDS = 0.2
"""Minimum interval between two statements that store progress."""

LINES_SECONDS, FIRST_LINES_SECONDS = 1.0, 0.5
"""Minimum interval between two statements that store lines; the second applies to the first lines of an attempt."""

Item = TypeVar("Item", Chunk, tuple[StartedAttempt, dict[str, Any]])


@dataclass
class _Unstored:
    progress: dict[str, Any] | None = None
    lines: Lines = NO_LINES
    stored: Portions = field(default_factory=Portions)
    has_stored: bool = False


class Reports:
    """Reports on one worker's running attempts. Main thread only."""

    def __init__(self) -> None:
        self._postgres = OutageTracker("Postgres", StoreUnavailable)  # its own: a failed report delays no start
        self._unstored: dict[RunningJob, _Unstored] = {}
        self._next_progress = self._next_lines = 0.0

    def take(self, job: RunningJob, progress: dict[str, Any] | None, lines: Lines | None) -> None:
        """Add a report to the buffer: progress replaces earlier progress, lines are appended."""
        one = self._unstored.setdefault(job, _Unstored())
        if progress:
            one.progress = progress
        if lines:
            one.lines = join([one.lines, lines])

    def complete(self, job: RunningJob, result: AttemptResult) -> AttemptResult:
        """Return the result with the attempt's unstored reports added; drop the attempt from the buffer."""
        one = self._unstored.pop(job, None)
        if one is None:
            return result
        if one.progress and not result.progress:
            result = replace(result, progress=one.progress)
        return with_lines(result, one.lines)

    def due_at(self) -> float:
        """Return when (monotonic seconds) `store` is due; infinity if there is nothing to store."""
        due_at = math.inf
        for one in self._unstored.values():
            if one.progress:
                due_at = min(due_at, self._next_progress)
            if one.lines.lines:
                early = 0.0 if one.has_stored else LINES_SECONDS - FIRST_LINES_SECONDS
                due_at = min(due_at, self._next_lines - early)
        return due_at

    def store(self) -> None:
        """Store what is due. After a failed write it stays in the buffer, and is stored with later reports."""
        now = time.monotonic()
        if now >= self._next_progress:
            self._store_progress({job: one.progress for job, one in self._unstored.items() if one.progress})
        if now >= min(self._next_lines, self.due_at()):
            self._store_lines({job: one.lines for job, one in self._unstored.items() if one.lines.lines})

    def _store_progress(self, progress: dict[RunningJob, dict[str, Any]]) -> None:
        if not progress:
            return
        stored = None
        with self._postgres:
            stored = _each(jobs.report, [(job.started, newest) for job, newest in progress.items()])
        if stored is None:
            self._next_progress = time.monotonic() + self._postgres.pause
            return
        self._next_progress = time.monotonic() + PROGRESS_SECONDS
        for job in _settled(progress, stored):
            self._unstored[job].progress = None

    def _store_lines(self, lines: dict[RunningJob, Lines]) -> None:
        if not lines:
            return
        stored = None
        chunks = [Chunk(job.started, new, self._unstored[job].stored.superfluous(new)) for job, new in lines.items()]
        with self._postgres:
            stored = _each(jobs.append_lines, chunks)
        if stored is None:  # `due_at` subtracts this difference for first lines
            self._next_lines = time.monotonic() + self._postgres.pause + LINES_SECONDS - FIRST_LINES_SECONDS
            return
        self._next_lines = time.monotonic() + LINES_SECONDS
        for job in _settled(lines, stored):
            one = self._unstored[job]
            one.stored.add(one.lines)
            one.lines, one.has_stored = NO_LINES, True


def _settled(reported: Iterable[RunningJob], stored: Collection[tuple[UUID, int]]) -> list[RunningJob]:
    """Return the jobs whose reports are stored, or never will be because the lease is lost."""
    return [job for job in reported if (job.started.job_id, job.started.fence) in stored or job.has_lost_lease]


def _each(store: Callable[[Sequence[Item]], set[tuple[UUID, int]]], items: Sequence[Item]) -> set[tuple[UUID, int]]:
    """Store these items together; if Postgres rejects them, one by one, dropping those that it rejects."""
    try:
        return store(items)
    except StoreUnavailable:
        raise
    except Exception:
        if len(items) > 1:
            return set().union(*(_each(store, [item]) for item in items))
        logger.exception("a report of a running attempt can't be stored")
        started = items[0][0]
        return {(started.job_id, started.fence)}
