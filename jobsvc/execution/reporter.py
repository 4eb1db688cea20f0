"""Reports on running attempts: new progress and log lines, on time even if the handler adds no more."""

import contextlib
import math
import time
from collections.abc import Collection, Mapping
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline
from jobsvc.jobs import StartedAttempt
from jobsvc.jobs.log_lines import Lines

YOUNG_SECONDS = 0.1
"""Age from which on an attempt's progress is reported; most attempts finish earlier."""

LINES_AFTER_SECONDS = 1.0
"""Age from which on an attempt's log lines are reported; those of shorter attempts come with the result."""


class Running(NamedTuple):
    """A running attempt; `since` is in monotonic seconds."""

    started: StartedAttempt
    deadline: Deadline
    log: AttemptLog
    since: float


class Report(NamedTuple):
    """New progress of an attempt, new lines of its log, or both."""

    slot: int
    started: StartedAttempt
    progress: dict[str, Any] | None
    lines: Lines | None


class Reporter:
    """Waits until reports on `running` attempts are due, and collects them.

    progress_seconds, lines_seconds: minimum interval between two reports of each kind.
    One thread calls `wait` and `collect`. Handlers' threads call `on_progress` and `on_line`, which take no lock (a
    timeout may interrupt them: deadlock) and let no queue grow (a handler may call them without a pause).
    """

    def __init__(self, running: Mapping[int, Running], progress_seconds: float, lines_seconds: float) -> None:
        self._running = running
        self._progress_seconds, self._lines_seconds = progress_seconds, lines_seconds
        self._progress_at = self._lines_at = 0.0  # monotonic seconds of the last reports
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._is_idle = False

    def on_progress(self) -> None:
        """Notify the reporter of new progress."""
        if self._wake.empty():
            self._wake.put(None)

    def on_line(self) -> None:
        """Notify the reporter of a new line if it is idle; otherwise it checks for lines by itself."""
        if self._is_idle and self._wake.empty():
            self._wake.put(None)

    def stop_waiting(self) -> None:
        """Make `wait` return at once. From any thread."""
        self._stop.put(None)
        self._wake.put(None)

    def wait(self, most: float = math.inf) -> None:
        """Wait until a report is due, for up to `most` seconds, or until `stop_waiting` is called."""
        due_at = self._due_at()
        if due_at == math.inf:
            self._is_idle = True
            due_at = self._due_at()  # race: a line may have been added before the flag was set
        seconds = max(min(due_at - time.monotonic(), most), 0)
        # While progress is waiting to become due, more of it must not wake this thread.
        has_progress = any(one.deadline.is_progress_new for one in list(self._running.values()))
        queue = self._stop if has_progress else self._wake
        with contextlib.suppress(Empty):
            queue.get(timeout=None if seconds == math.inf else seconds)
        self._is_idle = False

    def collect(self) -> list[Report]:
        """Return the reports that are due. Progress counts as reported at once, lines once `done` is called."""
        with contextlib.suppress(Empty):
            while True:
                self._wake.get_nowait()
        now = time.monotonic()
        is_progress_due = now >= self._progress_at + self._progress_seconds
        are_lines_due = now >= self._lines_at + self._lines_seconds
        found = []
        for slot, one in list(self._running.items()):
            progress = lines = None
            if is_progress_due and one.deadline.is_progress_new and now >= one.since + YOUNG_SECONDS:
                one.deadline.is_progress_new = False  # first, so that newer progress is not missed
                progress = one.deadline.last_progress
            if are_lines_due and one.log.has_unsent and now >= one.since + LINES_AFTER_SECONDS:
                lines = one.log.unsent()
            if progress or lines:
                found.append(Report(slot, one.started, progress, lines))
        if any(report.progress for report in found):
            self._progress_at = now
        if any(report.lines for report in found):
            self._lines_at = now
        return found

    def done(self, reports: Collection[Report]) -> None:
        """Mark these reports as accepted."""
        for report in reports:
            one = self._running.get(report.slot)
            if report.lines and one and one.started is report.started:
                one.log.sent = report.lines.last

    def again(self, reports: Collection[Report], seconds: float) -> None:
        """Mark these reports as not accepted, so that they are collected again after `seconds`."""
        for report in reports:
            one = self._running.get(report.slot)
            if report.progress and one and one.started is report.started:
                one.deadline.is_progress_new = True
        self._progress_at = time.monotonic() + seconds - self._progress_seconds
        self._lines_at = time.monotonic() + seconds - self._lines_seconds

    def _due_at(self) -> float:
        due_at = math.inf
        for one in list(self._running.values()):
            if one.deadline.is_progress_new:
                due_at = min(due_at, max(one.since + YOUNG_SECONDS, self._progress_at + self._progress_seconds))
            if one.log.has_unsent:
                due_at = min(due_at, max(one.since + LINES_AFTER_SECONDS, self._lines_at + self._lines_seconds))
        return due_at
