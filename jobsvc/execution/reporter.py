"""Reports on running attempts: new progress and log lines, in time also when the handler says nothing more."""

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
"""Progress of an attempt that is younger is not reported: most that young have ended before."""

LINES_AFTER_SECONDS = 1.0
"""Lines of an attempt are reported once it has run so long; of a shorter one they come with its end."""


class Running(NamedTuple):
    """An attempt that runs; `since` is in monotonic seconds."""

    started: StartedAttempt
    clock: Deadline
    log: AttemptLog
    since: float


class Report(NamedTuple):
    """New progress of an attempt, new lines of its log, or both."""

    slot: int
    started: StartedAttempt
    progress: dict[str, Any] | None
    lines: Lines | None


class Reporter:
    """Tells when there is something to report on `running` attempts, and collects it.

    progress_seconds, lines_seconds: the least time between two reports of each kind.
    One thread calls `wait` and `collect`. The handlers' threads call `on_progress` and `on_line`, which take no lock
    and add to no queue that grows: a timeout may strike in their midst, and a handler may call them without a pause.
    """

    def __init__(self, running: Mapping[int, Running], progress_seconds: float, lines_seconds: float) -> None:
        self._running = running
        self._progress_seconds, self._lines_seconds = progress_seconds, lines_seconds
        self._progress_at = self._lines_at = 0.0  # of the last reports
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._is_idle = False

    def on_progress(self) -> None:
        """Note that an attempt has new progress."""
        if self._wake.empty():
            self._wake.put(None)

    def on_line(self) -> None:
        """Note that an attempt has a new line. Lines are looked for by the clock, once the reporter is awake."""
        if self._is_idle and self._wake.empty():
            self._wake.put(None)

    def stop_waiting(self) -> None:
        """Let `wait` return at once. From any thread."""
        self._stop.put(None)
        self._wake.put(None)

    def wait(self, most: float = math.inf) -> None:
        """Wait until there is something to report, for `most` seconds, or until `stop_waiting` is called."""
        due_at = self._due_at()
        if due_at == math.inf:
            self._is_idle = True
            due_at = self._due_at()  # race: something may have come before the flag was seen
        seconds = max(min(due_at - time.monotonic(), most), 0)
        # While there is progress that is not due, more of it wakes nobody.
        queue = self._stop if self._has_progress() else self._wake
        with contextlib.suppress(Empty):
            queue.get(timeout=None if seconds == math.inf else seconds)
        self._is_idle = False

    def collect(self) -> list[Report]:
        """Return what is due. Lines count as reported when `done` is called, progress at once."""
        with contextlib.suppress(Empty):
            while True:
                self._wake.get_nowait()
        now = time.monotonic()
        is_progress_due = now >= self._progress_at + self._progress_seconds
        are_lines_due = now >= self._lines_at + self._lines_seconds
        found = []
        for slot, one in list(self._running.items()):
            progress = lines = None
            if is_progress_due and one.clock.is_progress_new and now >= one.since + YOUNG_SECONDS:
                one.clock.is_progress_new = False  # first, so that newer progress is not missed
                progress = one.clock.last_progress
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
        """Note that these were taken over."""
        for report in reports:
            one = self._running.get(report.slot)
            if report.lines and one and one.started is report.started:
                one.log.sent = report.lines.last

    def again(self, reports: Collection[Report], seconds: float) -> None:
        """Note that these could not be taken over, so that they are collected again after `seconds`."""
        for report in reports:
            one = self._running.get(report.slot)
            if report.progress and one and one.started is report.started:
                one.clock.is_progress_new = True
        self._progress_at = time.monotonic() + seconds - self._progress_seconds
        self._lines_at = time.monotonic() + seconds - self._lines_seconds

    def _has_progress(self) -> bool:
        return any(one.clock.is_progress_new for one in list(self._running.values()))

    def _due_at(self) -> float:
        due_at = math.inf
        for one in list(self._running.values()):
            if one.clock.is_progress_new:
                due_at = min(due_at, max(one.since + YOUNG_SECONDS, self._progress_at + self._progress_seconds))
            if one.log.has_unsent:
                due_at = min(due_at, max(one.since + LINES_AFTER_SECONDS, self._lines_at + self._lines_seconds))
        return due_at
