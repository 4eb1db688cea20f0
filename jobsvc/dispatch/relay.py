"""The relay: a thread that dispatches jobs to RQ, at once when notified, and in sweeps that find missed jobs.

Any number of relays may run, in API processes and beside workers; each job is claimed by one.
Postgres defines which jobs must be dispatched, so that nothing depends on a relay's memory.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable
from uuid import UUID

from jobsvc.config import settings
from jobsvc.dispatch.duties import Duties, Duty
from jobsvc.dispatch.listener import Listener
from jobsvc.jobs import Dispatch

logger = logging.getLogger("jobsvc.relay")


class Relay:
    """The relay of one process. The methods that return at once may be called from any thread.

    listens: if False, jobs enqueued in SQL are found by sweeps only.
    """

    def __init__(self, listens: bool = True) -> None:
        self._listens = listens
        self._reset()

    def _reset(self) -> None:
        self._duties = Duties()
        self._wakeup = threading.Event()
        self._is_stopped = False

    def dispatch(self, dispatches: Iterable[Dispatch]) -> None:
        """Dispatch these committed jobs. Returns at once, even while Redis is unavailable."""
        self._duties.new.extend(dispatches)
        self.notify(Duty.NEW)

    def withdraw(self, job_ids: Iterable[UUID]) -> None:
        """Remove these ended or deleted jobs from RQ, in the background and best effort. Returns at once."""
        self._duties.ended.extend(job_ids)
        self.notify(Duty.ENDED)

    def notify(self, duty: Duty) -> None:
        """Run the duty now, after a committed change that it depends on. Returns at once."""
        self._duties.request(duty)
        self._wakeup.set()

    def start(self) -> "Relay":
        """Run in a daemon thread. A process forked from this one starts a relay thread of its own."""
        os.register_at_fork(after_in_child=self._start_afresh)
        self._start_afresh()
        return self

    def _start_afresh(self) -> None:
        self._reset()  # fork: a thread may have locked the event
        self._thread = threading.Thread(target=self.run, name="relay", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it. CLI commands call this: they must not sweep with their shell's settings."""
        self._is_stopped = True
        self._wakeup.set()
        self._thread.join()

    def finish_pending(self) -> None:
        """After `stop`: dispatch and withdraw the jobs that were passed in since then."""
        while self._duties.new:
            self._duties.dispatch_new()
        self._duties.withdraw_ended()

    def run(self) -> None:
        """Run the duties until stopped, each first after an interval: a process that ends soon never sweeps."""
        listener = Listener(lambda: self.notify(Duty.DUE))
        if self._listens:
            listener.start()
        next_at = dict.fromkeys(Duty, time.monotonic() + settings().JOBSVC_SWEEP_SECONDS)
        while True:
            self._wakeup.clear()
            if self._is_stopped:
                listener.stop()
                return
            for duty in Duty:
                self._apply_requests(next_at)
                if time.monotonic() >= next_at[duty]:
                    next_at[duty] = time.monotonic() + self._run(duty)
            self._apply_requests(next_at)
            self._wakeup.wait(max(min(next_at.values()) - time.monotonic(), 0))

    def _apply_requests(self, next_at: dict[Duty, float]) -> None:
        while self._duties.requests:
            duty, moment = self._duties.requests.popleft()
            next_at[duty] = min(next_at[duty], moment)

    def _run(self, duty: Duty) -> float:
        """Run one duty; returns the seconds until its next run. Any error is logged: later sweeps find missed jobs."""
        try:
            return self._duties.table[duty]()
        except Exception:
            pause = settings().JOBSVC_SWEEP_SECONDS
            logger.exception("relay: duty %s failed, next try in %g s", duty.value, pause)
            return pause
