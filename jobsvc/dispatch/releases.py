"""The relay's duty for BLOCKED jobs: releases those that the end of a job has left, 1,000 in each transaction."""

import time
from collections.abc import Callable

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.jobs import NO_EDGE
from jobsvc.servers.outages import OutageTracker

FIND_SECONDS = 60.0
"""Seconds between two searches for BLOCKED jobs that a process of an earlier version should have released."""


class ReleaseDuty:
    """Releases dependents of ended jobs. on_release: called after each transaction that may have released some."""

    def __init__(self, postgres: OutageTracker, on_release: Callable[[], None]) -> None:
        self._postgres = postgres
        self._on_release = on_release
        self._find_at = 0.0  # monotonic seconds
        self._last_edge = NO_EDGE

    def run(self) -> float:
        """Run one transaction; returns the seconds until the next run."""
        with self._postgres:
            if time.monotonic() >= self._find_at:
                self._last_edge = jobs.find_unreleased(self._last_edge)
                self._find_at = time.monotonic() + FIND_SECONDS
            if jobs.release_pending():
                self._on_release()
                return 0.0
        return settings().JOBSVC_SWEEP_SECONDS
