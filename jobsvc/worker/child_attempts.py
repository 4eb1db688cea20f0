"""Attempts in a child process: runs them, restores the process after each, and reports their results."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any

from jobsvc.execution.async_deadline import AsyncDeadline
from jobsvc.execution.attempt import attempt, attempt_async, failed, with_lines, with_progress_and_logs
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.attempt_loop import AttemptLoop
from jobsvc.execution.deadline import Deadline
from jobsvc.execution.interruptions import AttemptTimeout
from jobsvc.execution.reporter import Reporter, Running
from jobsvc.jobs import AttemptResult, Failure, StartedAttempt, returned_uncounted
from jobsvc.states import Outcome
from jobsvc.worker import garbage, messages
from jobsvc.worker.messages import Message, PartialResult
from jobsvc.worker.process_state import ProcessState, restore_thread

logger = logging.getLogger("jobsvc.worker")

PROGRESS_SECONDS, LINES_SECONDS = 0.1, 0.5
"""Minimum interval between two reports to the worker. Its own interval for storing them adds to a reader's wait."""

RESTORE_TRIES = 3
"""Tries to restore the process: a signal handler left by a job may raise while it is being removed."""


class Attempts:
    """Attempts by slot: `running`, and `not_stored`, which are results that the worker has not stored yet.

    called_at, took: see ChildMain. is_serial: attempts run one at a time, on the main thread.
    The constructor takes the snapshot of the process to which it is restored.
    """

    def __init__(self, send: Callable[[Message], None], called_at: Any, took: Any, is_serial: bool) -> None:
        self.running: dict[int, Running] = {}
        self.not_stored: dict[int, AttemptResult] = {}
        self.reporter = Reporter(self.running, PROGRESS_SECONDS, LINES_SECONDS)
        self._send, self._called_at, self._took, self._is_serial = send, called_at, took, is_serial
        self._state = ProcessState()

    def run(self, slot: int, started: StartedAttempt, kind: type[Deadline]) -> bool:
        """Run an attempt on this thread; returns False if it left the process in a state that can't be restored."""
        deadline, log = kind(started, self.reporter.on_progress), AttemptLog()
        called_at = self._begin(slot, started, deadline, log)
        try:
            # In a context of its own, so that the next job sees none of its context variables.
            result = copy_context().run(attempt, started, deadline, log)
        except BaseException as error:  # e.g. of a signal handler that the job left
            result = _unforeseen(started, deadline, error)
        return self._finish(slot, result, log, called_at)

    async def run_async(self, slot: int, started: StartedAttempt, loop: AttemptLoop) -> bool:
        """Run an attempt in this task of the loop; returns as `run`."""
        leftovers = loop.track(started)
        deadline, log = AsyncDeadline(started, self.reporter.on_progress), AttemptLog()
        called_at = self._begin(slot, started, deadline, log)
        try:
            result = await attempt_async(started, deadline, log, leftovers)
        except BaseException as error:  # e.g. of a signal handler that the job left
            result = _unforeseen(started, deadline, error)
        loop.restore()
        return self._finish(slot, result, log, called_at) and leftovers.is_ended

    def partial_results(self, slot: int, current: StartedAttempt | None) -> Iterator[PartialResult]:
        """Yield the result so far of an attempt that does not stop, and that of one whose fault this is.

        current: the attempt whose task runs on the loop. If its time was over, and it blocks the loop, so that
        another attempt could not be interrupted at its timeout, that one is returned uncounted.
        """
        if (one := self.running.get(slot)) is None:
            return
        is_blocked = isinstance(one.deadline, AsyncDeadline) and not one.deadline.has_fired
        for number, other in list(self.running.items()):
            if is_blocked and other.started is current and other is not one and other.deadline.is_overdue:
                yield _partial_result(number, other)
                if isinstance(one.deadline.reason, AttemptTimeout):
                    yield PartialResult(slot, returned_uncounted(one.started.job_id, one.started.fence))
                    return
        yield _partial_result(slot, one)

    def _begin(self, slot: int, started: StartedAttempt, deadline: Deadline, log: AttemptLog) -> float:
        called_at = time.monotonic()
        log.on_new = self.reporter.on_line
        self.running[slot] = Running(started, deadline, log, called_at)
        self._called_at[slot] = called_at
        return called_at

    def _finish(self, slot: int, result: AttemptResult, log: AttemptLog, called_at: float) -> bool:
        is_usable = self._restore(is_alone=len(self.running) == 1)
        seconds = time.monotonic() - called_at
        # With all log lines: if the worker dies now, those sent before may not have been stored.
        self.not_stored[slot] = with_lines(result, log.kept()) if log.sent else result
        del self.running[slot]
        if result.is_plain and not log.sent:  # shared memory may be read before lines sent earlier
            self._took[slot] = max(seconds, 1e-9)
        else:
            self._send(messages.Finished(slot, result, seconds))
        if result.outcome != Outcome.COMPLETED:
            garbage.collect_soon()
        return is_usable

    def _restore(self, is_alone: bool) -> bool:
        """Restore what the attempt changed in this process; returns False if that fails.

        While other attempts run, restore only what none of them may rely on: not the working directory, for example.
        """
        for _ in range(RESTORE_TRIES):
            try:
                if self._is_serial:
                    return self._state.restore()
                restore_thread()
                return self._state.restore_shared() if is_alone else self._state.is_intact()
            except BaseException as error:
                logger.warning("state of the process: not restored: %r", error)
        return False


def _partial_result(slot: int, one: Running) -> PartialResult:
    result = failed(one.started, one.deadline.reason)
    return PartialResult(slot, with_progress_and_logs(result, one.deadline, one.log))


def _unforeseen(started: StartedAttempt, deadline: Deadline, error: BaseException) -> AttemptResult:
    """Return the result of an attempt out of which `error` came unexpectedly."""
    with contextlib.suppress(BaseException):
        deadline.close()
        return failed(started, deadline.reason if deadline.has_fired else error)
    failure = Failure(messages.UNSHOWN, "the attempt ended with an error that can't be shown")
    return AttemptResult(started.job_id, started.fence, Outcome.FAILED, failure=failure)
