"""Main program of a child process: runs the jobs sent by its worker, in turn or on several threads."""

import contextlib
import logging
import os
import pickle
import signal
import threading
import time
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from jobsvc import tracing
from jobsvc.execution.attempt import attempt, failed, with_lines, with_progress_and_logs
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline, on_alarm
from jobsvc.execution.interruptions import CANCEL_NOTICE_SECONDS, WorkerShutdown
from jobsvc.execution.reporter import Reporter, Running
from jobsvc.execution.thread_deadline import ThreadDeadline
from jobsvc.jobs import AttemptResult, Failure, StartedAttempt
from jobsvc.processes import forks
from jobsvc.states import Outcome
from jobsvc.worker import garbage, messages
from jobsvc.worker.ipc import Channel
from jobsvc.worker.messages import Message, Work
from jobsvc.worker.orphan_report import end_in_place_of_worker
from jobsvc.worker.process_state import ProcessState, restore_thread

logger = logging.getLogger("jobsvc.worker")

PROGRESS_SECONDS, LINES_SECONDS = 0.1, 0.5
"""Minimum interval between two reports to the worker. Its own interval for storing them adds to a reader's wait."""

FULL_SECONDS = 0.1
"""Pause while the worker does not read its messages."""

WAKE_AT = 50
"""Wake the worker up after this many results, or as soon as a thread may run out of work."""

RESTORE_TRIES = 3
"""Tries to restore the process: a signal handler left by a job may raise while it is being removed."""


class ChildMain:
    """Runs jobs in a child process. `called_at` and `took`, by slot, are memory shared with the worker.

    `called_at[slot]`: monotonic time at which the handler was called, 0 before. `took[slot]`: duration (seconds) of a
    success with nothing else to report; it costs next to nothing, and outlives this process as a message does.
    """

    def __init__(self, channel: Channel, called_at: Any, took: Any, threads: int) -> None:
        self._channel = channel
        self._called_at, self._took = called_at, took
        self._unannounced = 0  # results since the last wake-up of the worker
        self._threads = threads
        self._worker = os.getppid()
        self._is_retired = False
        self._waiting: SimpleQueue[Work] = SimpleQueue()
        self._running: dict[int, Running] = {}
        self._not_stored: dict[int, AttemptResult] = {}
        self._reporter = Reporter(self._running, PROGRESS_SECONDS, LINES_SECONDS)

    def run(self) -> NoReturn:
        """Run jobs until the worker closes the channel; never returns."""
        os.setpgrp()
        forks.be_main_process()
        # The worker handles signals that are sent to the whole group. Not by SIG_IGN, which programs started by
        # handlers would inherit.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _ignore)
        signal.signal(signal.SIGALRM, on_alarm)  # no effect without a deadline on the main thread
        forks.guard(
            {
                signal.SIGINT: (_ignore, signal.default_int_handler),
                signal.SIGTERM: (_ignore, signal.SIG_DFL),
                signal.SIGALRM: (on_alarm, signal.SIG_DFL),
            },
            self._channel.forget,
        )
        # Our threads block all signals: those are for the main thread.
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        garbage.set_up()
        for work in (self._listen, self._report):
            threading.Thread(target=work, daemon=True).start()
        restore_thread()
        self._state = ProcessState()
        if self._threads > 1:
            for _ in range(self._threads):
                threading.Thread(target=self._serve, daemon=True).start()
        else:
            self._serve()
        while True:
            threading.Event().wait()

    def _serve(self) -> None:
        kind = Deadline if self._threads == 1 else ThreadDeadline
        while not self._is_retired:
            if self._waiting.empty():
                tracing.flush()
            slot, started, latest = self._waiting.get()
            # If late, this process was frozen and the lease may have lapsed; if retired, another job damaged its state.
            if time.monotonic() > latest or self._is_retired:
                self._send_now(messages.Returned([slot]))
            else:
                self._attempt(slot, started, kind)

    def _attempt(self, slot: int, started: StartedAttempt, kind: type[Deadline]) -> None:
        called_at = time.monotonic()
        deadline, log = kind(started, self._reporter.on_progress), AttemptLog()
        log.on_new = self._reporter.on_line
        self._running[slot] = Running(started, deadline, log, called_at)
        self._called_at[slot] = called_at
        try:
            # In a context of its own, so that the next job sees none of its context variables.
            end = copy_context().run(attempt, started, deadline, log)
        except BaseException as error:  # e.g. of a signal handler that the job left
            end = _unforeseen(started, deadline, error)
        is_usable = self._restore(is_alone=len(self._running) == 1)
        seconds = time.monotonic() - called_at
        # With all log lines: if the worker dies now, those sent before may not have been stored.
        self._not_stored[slot] = with_lines(end, log.kept()) if log.sent else end
        del self._running[slot]
        if end.is_plain and not log.sent:  # shared memory may be read before lines sent earlier
            self._took[slot] = max(seconds, 1e-9)
        else:
            self._send(messages.Finished(slot, end, seconds))
        if end.outcome != Outcome.COMPLETED:
            garbage.collect_soon()
        self._unannounced += 1
        if not is_usable:
            self._retire()
        elif self._unannounced >= WAKE_AT or self._waiting.qsize() < self._threads:
            self._unannounced = 0
            self._channel.wake()

    def _restore(self, is_alone: bool) -> bool:
        """Restore what the attempt changed in this process; returns False if that fails.

        While other attempts run, restore only what none of them may rely on: not the working directory, for example.
        """
        for _ in range(RESTORE_TRIES):
            try:
                if self._threads == 1:
                    return self._state.restore()
                restore_thread()
                return self._state.restore_shared() if is_alone else self._state.is_intact()
            except BaseException as error:
                logger.warning("state of the process: not restored: %r", error)
        return False

    def _retire(self) -> None:
        self._is_retired = True
        logger.warning(
            "process %d: a job left it in a state that can't be restored, the process is replaced", os.getpid()
        )
        self._return_unstarted()
        self._send_now(messages.Retired())

    def _send(self, message: Message) -> None:
        frame = messages.encode(message)
        if frame and self._channel.is_intact():
            self._channel.send(frame)

    def _send_now(self, message: Message) -> None:
        self._send(message)
        self._channel.wake()

    def _report(self) -> None:
        while True:
            try:
                self._reporter.wait()
                if not self._channel.has_room():
                    time.sleep(FULL_SECONDS)
                elif reports := self._reporter.collect():
                    for slot, started, progress, lines in reports:
                        self._send(messages.Reported(slot, started.job_id, started.fence, progress, lines))
                    self._channel.wake()
                    self._reporter.done(reports)
            except Exception:  # e.g. out of memory because of a handler
                logger.exception("what running attempts report is not sent for now")
                time.sleep(FULL_SECONDS)

    def _listen(self) -> None:
        try:
            while frames := self._channel.receive():
                for frame in frames:
                    self._obey(pickle.loads(frame))  # noqa: S301  # only the worker can write to this end
        except BaseException:  # e.g. MemoryError; without this thread the process would keep its jobs for ever
            os._exit(os.EX_SOFTWARE)
        unstarted = [started for _, started, _ in self._take_all()]
        # Race: an attempt that finishes between the two copies is in both, so none is missed.
        end_in_place_of_worker(self._worker, unstarted, running=dict(self._running), not_stored=dict(self._not_stored))

    def _obey(self, command: messages.Command) -> None:
        match command:
            case messages.Run(work):
                for one in work:
                    self._waiting.put(one)
                if self._is_retired:
                    self._return_unstarted()
            case messages.Stored(slots):
                for slot in slots:
                    self._not_stored.pop(slot, None)
            case messages.Cancel(slot):
                if running := self._running.get(slot):
                    running.deadline.cancel(CANCEL_NOTICE_SECONDS)
            case messages.Interrupt(slot):
                if running := self._running.get(slot):
                    running.deadline.stop(WorkerShutdown("the worker shut down"), 0)
            case messages.SendPartialResult(slot):
                if running := self._running.get(slot):
                    result = failed(running.started, running.deadline.reason)
                    result = with_progress_and_logs(result, running.deadline, running.log)
                    self._send_now(messages.PartialResult(slot, result))
            case messages.ReturnUnstarted():
                self._return_unstarted()

    def _return_unstarted(self) -> None:
        self._send_now(messages.Returned([slot for slot, _, _ in self._take_all()]))

    def _take_all(self) -> list[Work]:
        work = []
        with contextlib.suppress(Empty):
            while True:
                work.append(self._waiting.get_nowait())
        return work


def _ignore(*_: object) -> None:
    pass


def _unforeseen(started: StartedAttempt, deadline: Deadline, error: BaseException) -> AttemptResult:
    """Return the result of an attempt out of which `error` came unexpectedly."""
    with contextlib.suppress(BaseException):
        deadline.close()
        return failed(started, deadline.reason if deadline.has_fired else error)
    failure = Failure(messages.UNSHOWN, "the attempt ended with an error that can't be shown")
    return AttemptResult(started.job_id, started.fence, Outcome.FAILED, failure=failure)
