"""Listens for jobs enqueued in SQL, so that they are dispatched at once and not by the next sweep.

Behind a pooler in transaction mode, LISTEN succeeds but nothing arrives. So the listener sends itself a notification
over another connection, and listens on only while those arrive. Losing its connection is no outage: sweeps find the
jobs.
"""

import logging
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from jobsvc.config import settings
from jobsvc.db import notifications
from jobsvc.db.notifications import Subscription
from jobsvc.servers.outages import Backoff

logger = logging.getLogger("jobsvc.relay")

PROOF_SECONDS = 30.0
"""Seconds between two notifications to itself."""

PROOF_WAIT_SECONDS = 1.0
"""Seconds within which such a notification must arrive."""

FIRST_UNPROVEN_PAUSE, LONGEST_UNPROVEN_PAUSE = 30.0, 960.0
"""Seconds until the next LISTEN after one whose proof failed; each pause doubles the previous one."""

CHECK_SECONDS = 1.0
"""Seconds between two checks whether to stop."""

GATHER_SECONDS = 0.02
"""Pause after notifications, before the next are read: any role of the database may notify, as often as it likes."""

MIN_CONNECTIONS = 3
"""Smallest JOBSVC_DB_CONNECTIONS with which one connection is used for listening."""


class Listener:
    """A daemon thread that calls `on_enqueue` after each commit of a transaction that has enqueued jobs in SQL."""

    def __init__(self, on_enqueue: Callable[[], None]) -> None:
        self._on_enqueue = on_enqueue
        self._is_stopped = threading.Event()
        self._receives = True
        self._unproven_pause = FIRST_UNPROVEN_PAUSE
        self._backoff = Backoff()

    def start(self) -> "Listener":
        """Start the thread, unless JOBSVC_DB_CONNECTIONS leaves no connection for it."""
        if settings().JOBSVC_DB_CONNECTIONS < MIN_CONNECTIONS:
            logger.info(
                "listener: off, since JOBSVC_DB_CONNECTIONS is below %d; sweeps find jobs enqueued in SQL, every %g s",
                MIN_CONNECTIONS,
                settings().JOBSVC_SWEEP_SECONDS,
            )
        else:
            threading.Thread(target=self._run, name="listener", daemon=True).start()
        return self

    def stop(self) -> None:
        """Have the thread end within CHECK_SECONDS. Returns at once: Postgres may stand still."""
        self._is_stopped.set()

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            try:
                with notifications.subscription() as subscription:
                    pause = self._follow(subscription)
            except notifications.FAILURES:
                pause = self._backoff.next()
            except Exception:
                pause = LONGEST_UNPROVEN_PAUSE
                logger.exception("listener: failed, next try in %g s", pause)
            self._is_stopped.wait(pause)

    def _follow(self, subscription: Subscription) -> float:
        """Listen until stopped, or until a proof fails; returns the seconds until the next try."""
        subscription.listen()
        is_new = True
        while not self._is_stopped.is_set():
            if not self._prove(subscription):
                pause = self._pause_unproven()
                subscription.unlisten()
                return pause
            if is_new:
                self._begin()
                is_new = False
            next_proof = time.monotonic() + PROOF_SECONDS
            while not self._is_stopped.is_set() and (left := next_proof - time.monotonic()) > 0:
                self._read(subscription, min(left, CHECK_SECONDS))
        return 0.0

    def _prove(self, subscription: Subscription) -> bool:
        """Send a notification to ourselves; returns True if it arrives in time."""
        token = uuid4().hex
        notifications.notify(subscription.channel, token)
        deadline = time.monotonic() + PROOF_WAIT_SECONDS
        while token not in self._read(subscription, deadline - time.monotonic()):
            if time.monotonic() >= deadline:
                return False
        return True

    def _read(self, subscription: Subscription, seconds: float) -> list[str]:
        payloads = subscription.wait(seconds)
        if "" in payloads:  # others are proofs, of any process
            self._on_enqueue()
        if payloads:
            self._is_stopped.wait(GATHER_SECONDS)
        return payloads

    def _begin(self) -> None:
        if not self._receives:
            logger.info("listener: receives notifications again, jobs enqueued in SQL are dispatched at once")
        self._receives = True
        self._unproven_pause = FIRST_UNPROVEN_PAUSE
        self._backoff.reset()
        self._on_enqueue()  # for jobs that were enqueued before

    def _pause_unproven(self) -> float:
        if self._receives:
            logger.warning(
                "listener: its own notification did not arrive within %g s, as behind a pooler in transaction mode; "
                "sweeps find jobs enqueued in SQL, every %g s",
                PROOF_WAIT_SECONDS,
                settings().JOBSVC_SWEEP_SECONDS,
            )
        self._receives = False
        pause, self._unproven_pause = self._unproven_pause, min(2 * self._unproven_pause, LONGEST_UNPROVEN_PAUSE)
        return pause
