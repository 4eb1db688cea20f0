"""What goes on beside a handler that has a process to itself: its lease, and a cancel."""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from jobsvc import jobs
from jobsvc.clock import CANCEL_GRACE_SECONDS, CANCEL_LOOK_SECONDS, CANCEL_NOTICE_SECONDS, GRACE_SECONDS, Clock
from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import Started

logger = logging.getLogger("jobsvc.worker")


class Watch(Clock):
    """A clock that also watches over its attempt, for a process in which nobody else does.

    From a thread the lease is renewed; and from there a handler that doesn't stop, because it
    swallows the exception or hangs in a C call, is ended with its process, after `give_up` was
    called with the reason.
    """

    def __init__(self, started: Started, give_up: Callable[[BaseException], Any]) -> None:
        super().__init__(started, self._store)
        self._started = started
        self._give_up = give_up
        self._grace = GRACE_SECONDS
        self._ended = threading.Event()
        self._keeper: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # for the thread to inherit
        super().__enter__()
        self._keeper = threading.Thread(target=copy_context().run, args=(self._keep,), daemon=True)
        self._keeper.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # for the main thread alone
        return self

    def close(self) -> None:
        """As the clock's."""
        super().close()
        self._ended.set()
        if self._keeper and self._keeper.ident is not None:
            self._keeper.join()

    def _keep(self) -> None:
        """Renew the lease, and look for a cancel, until the attempt is over or its handler can't be stopped."""
        lease = settings().JOBSVC_LEASE_SECONDS
        next_renewal = time.monotonic() + lease / 3
        while not self._ended.wait(min(CANCEL_LOOK_SECONDS, lease / 3, self._seconds_to_end())):
            if self._seconds_to_end() == 0:
                logger.error("%s did not stop when it was told to; its process ends", self._started.job_id)
                self._give_up(self.reason)
                os._exit(os.EX_SOFTWARE)
            if time.monotonic() >= next_renewal:
                next_renewal = time.monotonic() + (lease / 3 if self._renew(lease) else math.inf)
            if not self.is_cancelled and next_renewal < math.inf:
                self._look()

    def _seconds_to_end(self) -> float:
        """Until the handler has had all the time that it gets, and the grace."""
        return max(self.deadline + self._grace - time.monotonic(), 0)

    def _look(self) -> None:
        """Stop the handler if the job was called off."""
        try:
            if jobs.called_off([self._started]):
                self._grace = CANCEL_GRACE_SECONDS
                self.cancel(CANCEL_NOTICE_SECONDS)
        except Exception as error:
            logger.debug("%s can't tell whether it was cancelled: %s", self._started.job_id, error)

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

    def _store(self, progress: dict[str, Any]) -> None:
        try:
            jobs.report(self._started, progress)
        except StoreUnavailable as error:
            logger.warning("%s can't store its progress: %s", self._started.job_id, error)
