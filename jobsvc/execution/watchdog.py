"""Supervision of a handler in a process of a stock RQ worker: its lease, cancel requests and reports."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import (
    CANCEL_GRACE_SECONDS,
    CANCEL_LOOK_SECONDS,
    CANCEL_NOTICE_SECONDS,
    Deadline,
)
from jobsvc.execution.reporter import Report, Reporter, Running
from jobsvc.jobs import Chunk, StartedAttempt
from jobsvc.jobs.log_lines import Portions
from jobsvc.processes.orphans import end_group
from jobsvc.processes.timetable import GRACE_SECONDS

logger = logging.getLogger("jobsvc.worker")


PROGRESS_SECONDS, LINES_SECONDS = 0.2, 1.0
"""Minimum interval between two statements that store progress, or lines."""

RETRY_SECONDS = 0.5
"""Pause before a failed write of a report is retried."""


class StandaloneDeadline(Deadline):
    """Deadline that also supervises its attempt, for a process in which nothing else does.

    A thread renews the lease and stores reports. If the handler doesn't stop, because it swallows the exception or
    hangs in a C call, the thread calls `abandon` with the reason and kills this process with its group.
    """

    def __init__(self, started: StartedAttempt, log: AttemptLog, abandon: Callable[[BaseException], Any]) -> None:
        running: dict[int, Running] = {}
        self._reporter = Reporter(running, PROGRESS_SECONDS, LINES_SECONDS)
        super().__init__(started, self._reporter.on_progress)
        log.on_new = self._reporter.on_line
        running[0] = Running(started, self, log, time.monotonic())
        self._stored = Portions()
        self._is_failing = False
        self._started = started
        self._abandon_attempt = abandon
        self._grace = GRACE_SECONDS
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None

    def start(self) -> None:
        """Start the deadline and the supervising thread."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # inherited by the thread
        super().start()
        self._keeper = threading.Thread(target=copy_context().run, args=(self._keep,), daemon=True)
        self._keeper.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # in the main thread only

    def close(self) -> None:
        """Disarm the timer and stop the supervising thread."""
        super().close()
        self._ended.set()
        self._reporter.stop_waiting()
        if self._keeper and self._keeper.ident is not None:
            self._keeper.join()

    def _keep(self) -> None:
        """Renew the lease, check for a cancel and store reports, until the attempt ends or has to be killed."""
        lease = settings().JOBSVC_LEASE_SECONDS
        pause = min(CANCEL_LOOK_SECONDS, lease / 3)
        next_renewal, next_look = time.monotonic() + lease / 3, time.monotonic() + pause
        while not self._ended.is_set():
            self._reporter.wait(min(max(next_look - time.monotonic(), 0), self._seconds_to_end()))
            if self._ended.is_set():
                return
            if self._seconds_to_end() == 0:
                logger.error("%s did not stop when it was told to; its process ends", self._started.job_id)
                self._abandon_attempt(self.reason)
                end_group()
            if time.monotonic() >= next_renewal:
                next_renewal = time.monotonic() + (lease / 3 if self._renew(lease) else math.inf)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + pause
                if not self.is_cancelled and next_renewal < math.inf:
                    self._look()
            if next_renewal < math.inf:
                self._store_reports()

    def _seconds_to_end(self) -> float:
        """Return the seconds until the handler's deadline and its grace period have passed."""
        return max(self.deadline + self._grace - time.monotonic(), 0)

    def _look(self) -> None:
        """Stop the handler if a cancel was requested."""
        try:
            if jobs.cancel_requested([self._started]):
                self._grace = CANCEL_GRACE_SECONDS
                self.cancel(CANCEL_NOTICE_SECONDS)
        except Exception as error:
            logger.debug("%s can't tell whether it was cancelled: %s", self._started.job_id, error)

    def _renew(self, lease: float) -> bool:
        """Renew the lease; returns False if it was lost, True also if Postgres can't be asked."""
        try:
            if jobs.renew([self._started], lease):
                return True
            logger.warning("%s lost its lease; its outcome will not count", self._started.job_id)
            return False
        except Exception as error:
            # Any error may be temporary, and the lease may still be held.
            logger.warning("%s can't renew its lease: %s", self._started.job_id, error)
            return True

    def _store_reports(self) -> None:
        reports = self._reporter.collect()
        is_stored = False
        try:
            is_stored = all(self._store(report) for report in reports)
            self._is_failing = False
        except Exception as error:
            # Any error may be temporary, and the result contains the newest progress and all lines anyway.
            if not self._is_failing:
                logger.warning("%s can't store what it reports: %s", self._started.job_id, error)
            self._is_failing = True
        if is_stored:
            self._reporter.done(reports)
        else:
            self._reporter.again(reports, RETRY_SECONDS)

    def _store(self, report: Report) -> bool:
        """Store one report; returns False if the job's row was locked."""
        is_stored = not report.progress or bool(jobs.report([(self._started, report.progress)]))
        if report.lines:
            chunk = Chunk(self._started, report.lines, self._stored.superfluous(report.lines))
            if jobs.append_lines([chunk]):
                self._stored.add(report.lines)
            else:
                is_stored = False
        return is_stored
