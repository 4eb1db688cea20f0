"""What goes on beside a handler while it runs: its clock, its lease, its progress."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
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

PROGRESS_SECONDS = 0.2
"""Progress is stored at most this often; what came last is stored with the outcome at the latest."""


class AttemptTimeout(BaseException):
    """The handler's time is up. No Exception, so that a handler's `except Exception` can't hold it up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the attempt took longer than its {seconds:g} s")


class Watch:
    """Watches over one attempt: `with Watch(...)` around the handler, on the process' main thread.

    The attempt's timer replaces RQ's, which counts whole seconds only: at its end AttemptTimeout is
    raised in the handler. From one thread the lease is renewed; and from there a handler that
    doesn't stop, because it swallows the exception or hangs in a C call, is ended with its process,
    after `give_up` stored the outcome.
    """

    def __init__(self, started: Started, give_up: Callable[[], Any]) -> None:
        self._started = started
        self._give_up = give_up
        self._over = threading.Event()
        self._progress_stored = 0.0
        self.last_progress: dict[str, Any] | None = None

    def __enter__(self) -> "Watch":
        self._deadline = time.monotonic() + self._started.timeout
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        signal.signal(signal.SIGALRM, self._time_is_up)
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
        self._thread.join()

    def _time_is_up(self, signum: int, frame: FrameType | None) -> None:
        if not self._over.is_set():
            raise AttemptTimeout(self._started.timeout)

    def _keep(self) -> None:
        """Renew the lease until the attempt is over, or its handler can't be stopped."""
        lease = settings().JOBSVC_LEASE_SECONDS
        holds = True
        while not self._over.wait(min(lease / 3, max(self._deadline + GRACE_SECONDS - time.monotonic(), 0))):
            if time.monotonic() >= self._deadline + GRACE_SECONDS:
                logger.error("%s did not stop at its timeout; its process ends", self._started.job_id)
                self._give_up()
                os._exit(os.EX_SOFTWARE)
            try:
                if holds and not jobs.renew([self._started], lease):
                    holds = False
                    logger.warning("%s lost its lease; its outcome will not count", self._started.job_id)
            except Exception as error:
                # Whatever it is, the next time may go well, and the lease be held.
                logger.warning("%s can't renew its lease: %s", self._started.job_id, error)

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
