"""Renews the leases of running attempts when a third of their time has passed, and finds cancel requests."""

import logging
import math
import time
from collections.abc import Callable, Collection
from typing import NoReturn, Protocol

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import StartedAttempt

logger = logging.getLogger("jobsvc.worker")

CHECK_SECONDS = 1.0
"""Seconds between checks for cancel requests."""

OLD_SECONDS = 0.1
"""Attempts younger than this are not checked for a cancel request."""


class LeaseHolder(Protocol):
    """An attempt whose lease is kept. The keeper calls the methods in its own thread."""

    @property
    def started(self) -> StartedAttempt:
        """The attempt."""

    @property
    def since(self) -> float:
        """When its lease began, in monotonic seconds, or a moment before."""

    @property
    def is_running(self) -> bool:
        """True while its handler runs. Otherwise a refused renewal does not mean that the lease was lost."""

    def on_cancel(self) -> None:
        """Take note that a cancel was requested; may be called more than once."""

    def on_lost(self) -> None:
        """Take note that the lease was lost: another worker may run the job, and the result will not count."""


class LeaseKeeper:
    """Keeps the leases of the attempts that `holders` returns. One thread calls `run`, or `check` every `pause`."""

    def __init__(self, holders: Callable[[], Collection[LeaseHolder]]) -> None:
        self._holders = holders
        self._lease = settings().JOBSVC_LEASE_SECONDS
        self.pause = min(CHECK_SECONDS, self._lease / 3)
        self._renew_at: dict[LeaseHolder, float] = {}  # monotonic seconds; infinity once the lease is lost
        self._is_failing = False

    def run(self) -> NoReturn:
        """Keep leases for ever; for a thread of its own, so that nothing delays it."""
        while True:
            time.sleep(self.pause)
            self.check()

    def check(self) -> None:
        """Renew the leases that are due, and pass cancel requests on. A failure is retried by the next check."""
        try:
            now = time.monotonic()
            holders = self._holders()
            self._renew_at = {one: self._renew_at.get(one, one.since + self._lease / 3) for one in holders}
            self._renew([one for one in holders if self._renew_at[one] <= now])
            self._check_cancels([one for one in holders if now >= one.since + OLD_SECONDS])
            self._is_failing = False
        except StoreUnavailable as error:  # logged as an outage
            logger.debug("leases: not renewed: %s", error)
        except Exception:  # may be temporary, and the leases may still be ours
            if not self._is_failing:
                logger.exception("leases: not renewed, next try in %g s", self.pause)
            self._is_failing = True

    def _renew(self, due: Collection[LeaseHolder]) -> None:
        if not due:
            return
        renewed_at = time.monotonic()
        kept = jobs.renew([one.started for one in due], self._lease)
        for one in due:
            self._renew_at[one] = renewed_at + self._lease / 3
            # Race: a result that is being stored ends the lease as well, and then the handler no longer runs.
            if one.started.job_id not in kept and one.is_running:
                self._renew_at[one] = math.inf
                logger.warning("%s lost its lease; its result will not count", one.started.job_id)
                one.on_lost()

    def _check_cancels(self, old: Collection[LeaseHolder]) -> None:
        by_id = {one.started.job_id: one for one in old if self._renew_at[one] < math.inf}
        if by_id:
            for job_id in jobs.cancel_requested([one.started for one in by_id.values()]):
                by_id[job_id].on_cancel()
