"""What runs in a horse: the jobs that its worker gives it, in turn on the main thread, or on several threads."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Any

from jobsvc import garbage, jobs, tracing
from jobsvc.attempt import attempt, failed, said, with_lines
from jobsvc.attemptlog import AttemptLog
from jobsvc.channel import Channel
from jobsvc.clock import CANCEL_NOTICE_SECONDS, Clock, HandBack, ThreadClock
from jobsvc.jobs import AttemptEnd, Started, handed_back, lost
from jobsvc.reporter import Reporter, Running
from jobsvc.states import Outcome

logger = logging.getLogger("jobsvc.worker")

Work = tuple[int, Started, float]

PROGRESS_SECONDS, LINES_SECONDS = 0.1, 0.5
"""Least time between two reports to the worker, which stores them less often; a reader waits for both together."""

FULL_SECONDS = 0.1
"""Pause while the worker does not read what it was sent."""

RING_AT = 50
"""The worker is woken up when so many attempts have ended, or when fewer wait here than could run."""


class Runner:
    """`begun` and `took` are memory that it shares with its worker, by slots.

    When the job's handler was called; and how long an attempt took that completed, and of which there is nothing to
    tell. Such a note costs next to nothing, and outlives this process as a message does.
    """

    def __init__(self, channel: Channel, begun: Any, took: Any, threads: int) -> None:
        self._channel = channel
        self._begun, self._took = begun, took
        self._unheard = 0  # ends since the worker was woken up
        self._threads = threads
        self._waiting: SimpleQueue[Work] = SimpleQueue()
        self._running: dict[int, Running] = {}
        self._not_stored: dict[int, AttemptEnd] = {}
        self._reporter = Reporter(self._running, PROGRESS_SECONDS, LINES_SECONDS)

    def run(self) -> None:
        """Run what comes until the worker hangs up; doesn't return."""
        os.setpgrp()
        # The worker decides what a signal to the whole group means. No SIG_IGN: processes of handlers would inherit it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGALRM})  # for threads to inherit
        garbage.set_up()
        for work in (self._listen, self._report, *([self._serve] * self._threads if self._threads > 1 else [])):
            threading.Thread(target=work, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        if self._threads > 1:
            threading.Event().wait()
        self._serve()

    def _serve(self) -> None:
        kind = Clock if self._threads == 1 else ThreadClock
        while True:
            if self._waiting.empty():
                tracing.flush()
            slot, started, latest = self._waiting.get()
            if time.monotonic() > latest:  # this process was frozen, and the lease may have lapsed
                self._tell("returned", [slot])
            else:
                self._attempt(slot, started, kind)

    def _attempt(self, slot: int, started: Started, kind: type[Clock]) -> None:
        begun = time.monotonic()
        clock, log = kind(started, self._reporter.on_progress), AttemptLog()
        log.on_new = self._reporter.on_line
        self._running[slot] = Running(started, clock, log, begun)
        self._begun[slot] = begun
        end = attempt(started, clock, log)
        seconds = time.monotonic() - begun
        # What was sent of its log may be stored or not, should the worker die now.
        self._not_stored[slot] = with_lines(end, log.kept()) if log.sent else end
        del self._running[slot]
        if end.is_plain and not log.sent:  # a note in shared memory may overtake the lines
            self._took[slot] = max(seconds, 1e-9)
        else:
            self._channel.send(("ended", slot, end, seconds))
        if end.outcome != Outcome.COMPLETED:
            garbage.collect_soon()
        self._unheard += 1
        if self._unheard >= RING_AT or self._waiting.qsize() < self._threads:
            self._unheard = 0
            self._channel.ring()

    def _tell(self, *message: Any) -> None:
        self._channel.send(message)
        self._channel.ring()

    def _report(self) -> None:
        while True:
            try:
                self._reporter.wait()
                if not self._channel.has_room():
                    time.sleep(FULL_SECONDS)
                elif reports := self._reporter.collect():
                    self._tell("reports", reports)
                    self._reporter.done(reports)
            except Exception:  # such as a handler that takes all memory
                logger.exception("what running attempts report is not sent for now")
                time.sleep(FULL_SECONDS)

    def _listen(self) -> None:
        while messages := self._channel.receive():
            for kind, *rest in messages:
                getattr(self, f"_on_{kind}")(*rest)
        self._orphaned()

    def _on_run(self, work: Iterable[Work]) -> None:
        for one in work:
            self._waiting.put(one)

    def _on_stored(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self._not_stored.pop(slot, None)

    def _on_cancel(self, slot: int) -> None:
        if running := self._running.get(slot):
            running.clock.cancel(CANCEL_NOTICE_SECONDS)

    def _on_hand_back(self, slot: int) -> None:
        if running := self._running.get(slot):
            running.clock.stop(HandBack("the worker shut down"), 0)

    def _on_give_up(self, slot: int) -> None:
        if running := self._running.get(slot):
            end = failed(running.started, running.clock.reason)
            self._tell("last_words", slot, said(end, running.clock, running.log))

    def _on_recall(self) -> None:
        self._tell("returned", [slot for slot, _, _ in self._take_all()])

    def _take_all(self) -> list[Work]:
        work = []
        with contextlib.suppress(Empty):
            while True:
                work.append(self._waiting.get_nowait())
        return work

    def _orphaned(self) -> None:
        """The worker is gone: tell Postgres in its place, and end."""
        unbegun = [started for _, started, _ in self._take_all()]
        running, not_stored = dict(self._running), dict(self._not_stored)  # what ends between the two is in both
        ends = [
            *not_stored.values(),
            *(
                with_lines(
                    lost(one.started.job_id, one.started.fence, "the worker died before the attempt ended"),
                    one.log.kept(),
                )
                for slot, one in running.items()
                if slot not in not_stored
            ),
            *(handed_back(one.job_id, one.fence, begun=False) for one in unbegun),
        ]
        try:
            if ends:
                jobs.finish(ends)
                logger.warning("the worker died; %d jobs ended or went back in its place", len(ends))
        except Exception as error:
            logger.warning("the worker died, and Postgres can't be told; %d leases lapse: %s", len(ends), error)
        finally:
            os._exit(os.EX_OK)
