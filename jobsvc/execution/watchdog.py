"""Supervision of a handler in a process of a stock RQ worker: its lease, cancel requests and reports."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from jobsvc import jobs
from jobsvc.execution.async_deadline import AsyncDeadline
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline
from jobsvc.execution.interruptions import CANCEL_GRACE_SECONDS, CANCEL_NOTICE_SECONDS
from jobsvc.execution.lease_keeper import LeaseKeeper
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


class _Supervising(Deadline):
    """A deadline, of one kind or the other, that also supervises its attempt.

    A thread renews the lease and stores reports. If the handler doesn't stop, because it swallows the exception or
    hangs in a C call, the thread calls `abandon` with the reason and kills this process with its group.
    """

    def __init__(self, started: StartedAttempt, log: AttemptLog, abandon: Callable[[BaseException], Any]) -> None:
        running: dict[int, Running] = {}
        self._reporter = Reporter(running, PROGRESS_SECONDS, LINES_SECONDS)
        super().__init__(started, self._reporter.on_progress)
        log.on_new = self._reporter.on_line
        self.started, self.since = started, time.monotonic()
        running[0] = Running(started, self, log, self.since)
        self._stored = Portions()
        self._is_failing = False
        self._abandon_attempt = abandon
        self._grace = GRACE_SECONDS
        self._has_lost_lease = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the deadline and the supervising thread."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # inherited by the thread
        super().start()
        self._thread = threading.Thread(target=copy_context().run, args=(self._supervise,), daemon=True)
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # in the main thread only

    def close(self) -> None:
        """Disarm the timer and stop the supervising thread."""
        super().close()
        self._ended.set()
        self._reporter.stop_waiting()
        if self._thread and self._thread.ident is not None:
            self._thread.join()

    @property
    def is_running(self) -> bool:
        """Return True while the handler runs."""
        return not self._ended.is_set()

    def on_cancel(self) -> None:
        """Stop the handler: a cancel was requested."""
        self._grace = CANCEL_GRACE_SECONDS
        self.cancel(CANCEL_NOTICE_SECONDS)

    def on_lost(self) -> None:
        """Store no more reports: the lease was lost."""
        self._has_lost_lease = True

    def _supervise(self) -> None:
        """Keep the lease and store reports, until the attempt ends or has to be killed."""
        keeper = LeaseKeeper(lambda: [self])
        next_check = time.monotonic() + keeper.pause
        while self.is_running:
            self._reporter.wait(min(max(next_check - time.monotonic(), 0), self._seconds_to_end()))
            if not self.is_running:
                return
            if self._seconds_to_end() == 0:
                logger.error("%s did not stop when asked, its process is killed", self.started.job_id)
                self._abandon_attempt(self.reason)
                end_group()
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + keeper.pause
                keeper.check()
            if not self._has_lost_lease:
                self._store_reports()

    def _seconds_to_end(self) -> float:
        """Return the seconds until the handler's deadline and its grace period have passed."""
        return max(self.reason_at + self._grace - time.monotonic(), 0)

    def _store_reports(self) -> None:
        reports = self._reporter.collect()
        is_stored = False
        try:
            is_stored = all(self._store(report) for report in reports)
            self._is_failing = False
        except Exception as error:
            # Any error may be temporary, and the result contains the newest progress and all lines anyway.
            if not self._is_failing:
                logger.warning("%s can't store what it reports: %s", self.started.job_id, error)
            self._is_failing = True
        if is_stored:
            self._reporter.done(reports)
        else:
            self._reporter.again(reports, RETRY_SECONDS)

    def _store(self, report: Report) -> bool:
        """Store one report; returns False if the job's row was locked."""
        is_stored = not report.progress or bool(jobs.report([(self.started, report.progress)]))
        if report.lines:
            chunk = Chunk(self.started, report.lines, self._stored.superfluous(report.lines))
            if jobs.append_lines([chunk]):
                self._stored.add(report.lines)
            else:
                is_stored = False
        return is_stored


class StandaloneDeadline(_Supervising):
    """Deadline for a process in which nothing else supervises the attempt."""


class StandaloneAsyncDeadline(_Supervising, AsyncDeadline):
    """The same for an async handler."""

    def start(self) -> None:
        """Start the deadline and the supervising thread; stop RQ's timer, which would interrupt the loop itself."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        super().start()
