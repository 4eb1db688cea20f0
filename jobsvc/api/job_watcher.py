"""The job watcher: one thread polls the jobs that clients wait for, however many clients there are."""

import logging
import os
import threading
import time
from uuid import UUID

from jobsvc import jobs
from jobsvc.api.clients import Client
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import START, Position, Snapshot
from jobsvc.servers.outages import Backoff, OutageTracker

logger = logging.getLogger("jobsvc.api")

POLL_SECONDS = 0.05
"""Pause between two polls of Postgres, while any client waits."""

LINES_POLL_SECONDS = 0.25
"""Pause between two polls for new log lines, while any client follows a log."""

LARGEST_SHARE = 0.1
"""Maximum share of time spent polling; the pause grows with the duration of a poll."""


class Subscription:
    """A client's subscription to one job. It takes one slot of its watcher, so it must be closed in any case."""

    def __init__(self, watcher: "JobWatcher", job_id: UUID, seen: int, address: str) -> None:
        self.job_id = job_id
        self.address = address
        self.is_over = False
        """No more changes will come: the job was deleted, or the slot was taken back."""
        self.is_withdrawn = False
        """The slot was taken back: the client has disconnected, another one needs it, or the watcher was closed."""
        self.wants_lines = False
        """Wake the client for new log lines as well."""
        self._newest_line = START
        self._has_new_lines = False
        self._watcher = watcher
        self._seen = seen
        self._latest: Snapshot | None = None
        self._wakeup = threading.Event()

    def next(self, timeout: float) -> Snapshot | None:
        """Return the newest state that was not returned yet; changes in between are merged into it.

        Returns None after `timeout` seconds without a change, for new log lines, or once `is_over` is set.
        """
        deadline = time.monotonic() + timeout
        while True:
            latest = self._latest
            if latest is not None and latest.version > self._seen:
                self._seen = latest.version
                return latest
            if self._has_new_lines:
                self._has_new_lines = False
                return None
            if self.is_over or not self._wakeup.wait(max(deadline - time.monotonic(), 0)):
                return None
            self._wakeup.clear()

    def notify(self, latest: Snapshot | None) -> None:
        """Wake the client with the new state of its job; None ends the subscription."""
        if latest is None:
            self.is_over = True
        else:
            self._latest = latest
        self._wakeup.set()

    def notify_lines(self, newest: Position) -> None:
        """Wake the client if `newest` differs from the position of its last notification."""
        if newest != self._newest_line:
            self._newest_line, self._has_new_lines = newest, True
            self._wakeup.set()

    def withdraw(self) -> None:
        """End the client's wait and take its slot back. Thread-safe, and safe to call twice."""
        self.is_withdrawn = True
        self.notify(None)
        self.close()

    def close(self) -> None:
        """Free the slot for another client. Safe to call twice."""
        self._watcher.leave(self)


class JobWatcher:
    """Polls jobs for the waiting clients of this process. `slots`: maximum number of clients. Thread-safe."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._by_address: dict[str, dict[Subscription, None]] = {}  # by address, oldest first
        self._watches: dict[UUID, set[Subscription]] = {}
        self._known: dict[UUID, Snapshot] = {}
        self._next_lines_poll = 0.0
        self._has_waiters = threading.Event()
        self.is_closed = False
        """The process is about to stop: new subscriptions are refused."""

    def start(self) -> "JobWatcher":
        """Start polling in a daemon thread; a process forked from this one starts a thread of its own."""
        os.register_at_fork(after_in_child=self._start_afresh)
        self._start_afresh()
        return self

    def _start_afresh(self) -> None:
        self._reset()  # fork: another thread may have had the lock
        threading.Thread(target=self._run, name="job watcher", daemon=True).start()

    def watch(self, job_id: UUID, seen: int = -1, client: Client | None = None) -> Subscription | None:
        """Subscribe a client that has seen this version of the job; None without a free slot, and at shutdown.

        If all slots are taken, the address with the most of them loses its oldest one to a client whose address has
        fewer. So no address can take all slots from the others.
        """
        watch = Subscription(self, job_id, seen, client.address if client else "")
        with self._lock:
            leaving = None
            if self.is_closed:
                return None
            if sum(map(len, self._by_address.values())) >= self._slots:
                leaving = self._replaceable(watch.address)
                if leaving is None:
                    return None
                self._remove(leaving)
            self._by_address.setdefault(watch.address, {})[watch] = None
            self._watches.setdefault(job_id, set()).add(watch)
            if known := self._known.get(job_id):
                watch.notify(known)
            self._has_waiters.set()
        if leaving:
            leaving.withdraw()
        if client:
            client.on_disconnect(watch.withdraw)
        return watch

    def _replaceable(self, address: str) -> Subscription | None:
        """Return the oldest watch of the address with the most; None if it would then have fewer than `address`."""
        most = max(self._by_address.values(), key=len, default={})
        return next(iter(most)) if len(most) > len(self._by_address.get(address, {})) + 1 else None

    def leave(self, watch: Subscription) -> None:
        """Free a subscription's slot."""
        with self._lock:
            self._remove(watch)

    def _remove(self, watch: Subscription) -> None:
        mine = self._by_address.get(watch.address, {})
        mine.pop(watch, None)
        if not mine:
            self._by_address.pop(watch.address, None)
        others = self._watches.get(watch.job_id, set())
        others.discard(watch)
        if not others:
            self._forget(watch.job_id)
        if not self._watches:
            self._has_waiters.clear()

    def _forget(self, job_id: UUID) -> None:
        self._watches.pop(job_id, None)
        self._known.pop(job_id, None)

    def close(self) -> None:
        """End all subscriptions and refuse new ones: the process is about to stop."""
        with self._lock:
            self.is_closed = True
            waiting = [watch for watches in self._by_address.values() for watch in watches]
        for watch in waiting:
            watch.withdraw()

    def _run(self) -> None:
        """Poll forever while any client waits."""
        postgres = OutageTracker("Postgres", StoreUnavailable)
        backoff = Backoff()
        while True:
            self._has_waiters.wait()
            began = time.monotonic()
            pause = None
            try:
                with postgres:
                    self._poll()
                    pause = max(POLL_SECONDS, (time.monotonic() - began) * (1 / LARGEST_SHARE - 1))
                    backoff.reset()
            except Exception:
                logger.exception("job watcher: poll failed")
            time.sleep(pause or backoff.next())

    def _poll(self) -> None:
        with self._lock:
            known = {id_: self._known[id_].version if id_ in self._known else -1 for id_ in self._watches}
        for job_id, latest in jobs.changes(known).items():
            with self._lock:
                watches = self._watches.get(job_id, set())
                for watch in watches:
                    watch.notify(latest)
                if latest is None:
                    self._forget(job_id)
                elif watches:
                    self._known[job_id] = latest
        if time.monotonic() >= self._next_lines_poll:
            self._next_lines_poll = time.monotonic() + LINES_POLL_SECONDS
            self._poll_lines()

    def _poll_lines(self) -> None:
        with self._lock:
            followed = [id_ for id_, watches in self._watches.items() if any(one.wants_lines for one in watches)]
        if followed:
            for job_id, newest in jobs.latest_lines(followed).items():
                with self._lock:
                    for watch in self._watches.get(job_id, set()):
                        if watch.wants_lines:
                            watch.notify_lines(newest)
