"""Main program of a child process: runs the jobs sent by its worker.

One at a time on the main thread; or several, on threads and, those of async handlers, on an event loop.
"""

import asyncio
import logging
import os
import pickle
import signal
import threading
import time
from typing import Any, NoReturn

from jobsvc import handlers, tracing
from jobsvc.execution.attempt_loop import AttemptLoop
from jobsvc.execution.deadline import Deadline, on_alarm
from jobsvc.execution.interruptions import CANCEL_NOTICE_SECONDS, WorkerShutdown
from jobsvc.execution.thread_deadline import ThreadDeadline
from jobsvc.processes import forks
from jobsvc.worker import garbage, messages
from jobsvc.worker.child_attempts import Attempts
from jobsvc.worker.ipc import Channel
from jobsvc.worker.messages import Message, Work
from jobsvc.worker.orphan_report import end_in_place_of_worker
from jobsvc.worker.process_state import restore_thread
from jobsvc.worker.thread_limit import MAX_THREADS
from jobsvc.worker.waiting_jobs import SerialJobs, SharedJobs

logger = logging.getLogger("jobsvc.worker")

FULL_SECONDS = 0.1
"""Pause while the worker does not read its messages."""

WAKE_AT = 50
"""Wake the worker up after this many results, or as soon as a slot may run out of work."""


class ChildMain:
    """Runs jobs in a child process. `called_at` and `took`, by slot, are memory shared with the worker.

    `called_at[slot]`: monotonic time at which the handler was called, 0 before. `took[slot]`: duration (seconds) of a
    success with nothing else to report; it costs next to nothing, and outlives this process as a message does.
    """

    def __init__(self, channel: Channel, called_at: Any, took: Any, concurrency: int) -> None:
        self._channel = channel
        self._called_at, self._took = called_at, took
        self._unannounced = 0  # results since the last wake-up of the worker
        self._concurrency = concurrency
        self._worker = os.getppid()
        self._is_retired = False
        self._threads = 0
        self._loop: AttemptLoop | None = None
        self._shared: SharedJobs | None = None
        if concurrency > 1:
            self._shared = SharedJobs(concurrency, min(concurrency, MAX_THREADS), _is_async, self._wake_loop)
        self._waiting = self._shared or SerialJobs()

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
        self._attempts = Attempts(self._send, self._called_at, self._took, is_serial=self._concurrency == 1)
        for work in (self._listen, self._report):
            threading.Thread(target=work, daemon=True).start()
        restore_thread()
        if self._concurrency == 1:
            self._serve_serially()
        while True:
            threading.Event().wait()

    def _serve_serially(self) -> None:
        while not self._is_retired:
            if not self._waiting.count():
                tracing.flush()
            if self._may_start(work := self._waiting.take()):
                if _is_async(work):
                    self._loop = self._loop or AttemptLoop()
                    is_usable = self._loop.run(self._attempts.run_async(work.slot, work.started, self._loop))
                else:
                    is_usable = self._attempts.run(work.slot, work.started, Deadline)
                self._after(is_usable)

    def _serve(self, jobs: SharedJobs) -> None:
        """Run jobs on a thread, of which there may be several."""
        restore_thread()
        while not self._is_retired:
            if not jobs.count():
                tracing.flush()
            if self._may_start(work := jobs.take()):
                self._after(self._attempts.run(work.slot, work.started, ThreadDeadline))
            jobs.release(thread=True)

    def _wake_loop(self) -> None:
        if self._loop is None:
            self._loop = AttemptLoop()
            threading.Thread(target=self._run_loop, args=(self._loop,), name="loop", daemon=True).start()
        self._loop.loop.call_soon_threadsafe(self._start_async)

    def _run_loop(self, loop: AttemptLoop) -> NoReturn:
        restore_thread()
        loop.run_forever()

    def _start_async(self) -> None:
        assert self._loop
        assert self._shared
        while work := self._shared.take_async():
            self._loop.start(self._run_async(work, self._loop, self._shared))

    async def _run_async(self, work: Work, loop: AttemptLoop, jobs: SharedJobs) -> None:
        if self._may_start(work):
            self._after(await self._attempts.run_async(work.slot, work.started, loop))
        jobs.release(thread=False)
        if tracing.is_on() and not jobs.count():
            await asyncio.to_thread(tracing.flush)

    def _may_start(self, work: Work) -> bool:
        """Return True if this job may start; else return it to the worker."""
        # If late, this process was frozen and the lease may have lapsed; if retired, another job damaged its state.
        if time.monotonic() > work.latest or self._is_retired:
            self._send_now(messages.Returned([work.slot]))
            return False
        return True

    def _after(self, is_usable: bool) -> None:
        self._unannounced += 1
        if not is_usable:
            self._retire()
        elif self._unannounced >= WAKE_AT or self._waiting.count() < self._concurrency:
            self._unannounced = 0
            self._channel.wake()

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
                self._attempts.reporter.wait()
                if not self._channel.has_room():
                    time.sleep(FULL_SECONDS)
                elif reports := self._attempts.reporter.collect():
                    for slot, started, progress, lines in reports:
                        self._send(messages.Reported(slot, started.job_id, started.fence, progress, lines))
                    self._channel.wake()
                    self._attempts.reporter.done(reports)
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
        unstarted = [started for _, started, _ in self._waiting.take_all()]
        running = dict(self._attempts.running)  # race: first, so that an attempt that finishes now is in one of them
        end_in_place_of_worker(self._worker, unstarted, running=running, not_stored=dict(self._attempts.not_stored))

    def _obey(self, command: messages.Command) -> None:
        match command:
            case messages.Run(work):
                self._waiting.add(work)
                self._start_threads()
                if self._is_retired:
                    self._return_unstarted()
            case messages.Stored(slots):
                for slot in slots:
                    self._attempts.not_stored.pop(slot, None)
            case messages.Cancel(slot):
                if running := self._attempts.running.get(slot):
                    running.deadline.cancel(CANCEL_NOTICE_SECONDS)
            case messages.Interrupt(slot):
                if running := self._attempts.running.get(slot):
                    running.deadline.stop(WorkerShutdown("the worker shut down"), 0)
            case messages.SendPartialResult(slot):
                for result in self._attempts.partial_results(slot, self._loop.current if self._loop else None):
                    self._send_now(result)
            case messages.ReturnUnstarted():
                self._return_unstarted()

    def _return_unstarted(self) -> None:
        self._send_now(messages.Returned([slot for slot, _, _ in self._waiting.take_all()]))

    def _start_threads(self) -> None:
        while self._shared and self._threads < self._shared.wanted_threads:
            self._threads += 1
            threading.Thread(target=self._serve, args=(self._shared,), daemon=True).start()


def _is_async(work: Work) -> bool:
    handler = handlers.find(work.started.type)
    return handler is not None and handler.is_async


def _ignore(*_: object) -> None:
    pass
