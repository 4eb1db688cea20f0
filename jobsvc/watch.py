"""What goes on beside a handler while it runs: its clock, its lease, its progress."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import FrameType, TracebackType
from typing import Any

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import Started
from jobsvc.strictjson import clean

logger = logging.getLogger("jobsvc.worker")

GRACE_SECONDS = 10.0
"""How long a handler may take to stop, once it was told that its time is up."""

LOOK_SECONDS = 1.0
"""How often it is looked whether the job was called off."""

CANCEL_NOTICE_SECONDS = 1.0
"""How long a handler that looks at `ctx.cancelled` has for itself, before Cancelled is raised in it."""

CANCEL_GRACE_SECONDS = 1.5
"""How long it may take to stop then. All three together have to stay well below 5 s."""

PROGRESS_SECONDS = 0.2
"""Progress is stored at most this often; what came last is stored with the outcome at the latest."""


class AttemptTimeout(BaseException):
    """The handler's time is up. No Exception, so that a handler's `except Exception` can't hold it up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the attempt took longer than its {seconds:g} s")


class HandBack(BaseException):
    """The worker shuts down, and the handler took longer than the time that was left to it."""


class Cancelled(BaseException):
    """Somebody called the job off."""


class Watch:
    """Watches over one attempt: `with Watch(...)` around the handler, on the process' main thread.

    The attempt's timer replaces RQ's, which counts whole seconds only: at its end AttemptTimeout is
    raised in the handler, or HandBack, if SIGUSR1 told that the worker shuts down, or Cancelled, if
    the job was called off. From a thread the lease is renewed; and from there a handler that doesn't
    stop, because it swallows the exception or hangs in a C call, is ended with its process, after
    `give_up` was called with it.
    """

    def __init__(self, started: Started, give_up: Callable[[BaseException], Any]) -> None:
        self._started = started
        self._give_up = give_up
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._progress_stored = 0.0
        self._cancelled = False
        self.handler_knows = False
        self.last_progress: dict[str, Any] | None = None

    def __enter__(self) -> "Watch":
        self._reason: BaseException = AttemptTimeout(self._started.timeout)
        self._deadline = time.monotonic() + self._started.timeout
        self._grace = GRACE_SECONDS
        # Blocked, it waits for a thread of ours that asks for it, also while the handler sits in a C call.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM})
        self._threads = [
            threading.Thread(target=copy_context().run, args=(work,), daemon=True)
            for work in (self._keep, self._listen)
        ]
        for thread in self._threads:
            thread.start()
        signal.signal(signal.SIGALRM, self._time_is_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # for the main thread alone
        signal.setitimer(signal.ITIMER_REAL, self._started.timeout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching. Safe to call twice, as one must: the timer may strike in the midst of the first call."""
        self._over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        for thread in self._threads:
            if thread.ident is not None and thread.is_alive():
                signal.pthread_kill(thread.ident, signal.SIGUSR1)  # wakes the one that listens
            thread.join()

    def _listen(self) -> None:
        """Wait until the worker shuts down, or the attempt is over."""
        signal.sigwait({signal.SIGUSR1})
        self._stop(HandBack("the worker shut down"), settings().JOBSVC_SHUTDOWN_SECONDS, GRACE_SECONDS)

    def _stop(self, reason: BaseException, left: float, grace: float) -> None:
        """Raise `reason` in the handler in `left` seconds, unless it is stopped sooner anyway."""
        deadline = time.monotonic() + left
        if not self._over.is_set() and deadline + grace < self._deadline + self._grace:
            self._reason, self._deadline, self._grace = reason, deadline, grace
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))

    def _time_is_up(self, signum: int, frame: FrameType | None) -> None:
        if not self._over.is_set():
            raise self._reason

    def _keep(self) -> None:
        """Renew the lease, and look for a cancel, until the attempt is over or its handler can't be stopped."""
        lease = settings().JOBSVC_LEASE_SECONDS
        next_renewal = time.monotonic() + lease / 3
        while not self._over.wait(min(LOOK_SECONDS, lease / 3, self._seconds_to_end())):
            if self._seconds_to_end() == 0:
                logger.error("%s did not stop when it was told to; its process ends", self._started.job_id)
                self._give_up(self._reason)
                os._exit(os.EX_SOFTWARE)
            if time.monotonic() >= next_renewal:
                next_renewal = time.monotonic() + (lease / 3 if self._renew(lease) else math.inf)
            if not self._cancelled and next_renewal < math.inf:
                self._look()

    def _seconds_to_end(self) -> float:
        """Until the handler has had all the time that it gets, and the grace."""
        return max(self._deadline + self._grace - time.monotonic(), 0)

    def _look(self) -> None:
        """Stop the handler if the job was called off."""
        try:
            self._cancelled = bool(jobs.called_off([self._started]))
        except Exception as error:
            logger.debug("%s can't tell whether it was cancelled: %s", self._started.job_id, error)
        if self._cancelled:
            self._stop(Cancelled("the job was cancelled"), CANCEL_NOTICE_SECONDS, CANCEL_GRACE_SECONDS)

    def tell_cancelled(self) -> bool:
        """Whether the job was called off; from when that is told, `handler_knows`."""
        self.handler_knows = self._cancelled
        return self._cancelled

    def _renew(self, lease: float) -> bool:
        """Whether the attempt still holds its job, as far as one can tell."""
        try:
            if jobs.renew([self._started], lease):
                return True
            logger.warning("%s lost its lease; its outcome will not count", self._started.job_id)
            return False
        except Exception as error:
            # Whatever it is, the next time may go well, and the lease be held.
            logger.warning("%s can't renew its lease: %s", self._started.job_id, error)
            return True

    def progress(self, percent: float, message: str | None) -> None:
        """Take note of the handler's progress, and store it now and then."""
        self.last_progress = {"percent": float(percent), "message": None if message is None else clean(str(message))}
        if time.monotonic() - self._progress_stored < PROGRESS_SECONDS:
            return
        self._progress_stored = time.monotonic()
        try:
            jobs.report(self._started, self.last_progress)
        except StoreUnavailable as error:
            logger.warning("%s can't store its progress: %s", self._started.job_id, error)
