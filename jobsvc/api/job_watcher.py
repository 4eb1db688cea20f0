"""The hub: one thread that looks at the jobs for which clients wait, whatever the number of clients."""

import logging
import os
import threading
import time
from uuid import UUID

from jobsvc import jobs
from jobsvc.api.waiting_client import Client
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import START, Position, Snapshot
from jobsvc.servers.outages import Backoff, OutageTracker

logger = logging.getLogger("jobsvc.api")

LOOK_SECONDS = 0.05
"""The pause between two looks at Postgres, while anybody waits."""

LINES_LOOK_SECONDS = 0.25
"""The pause between two looks for new log lines, while anybody follows some."""

LARGEST_SHARE = 0.1
"""Of the time, looks take this at most: slow ones are made less often."""


class Subscription:
    """One client's place at the hub, and its view of one job. Close it, also when nothing came of it."""

    def __init__(self, hub: "JobWatcher", job_id: UUID, seen: int, address: str) -> None:
        self.job_id = job_id
        self.address = address
        self.is_over = False
        """Nothing more will come: the job is gone, or the place was taken back."""
        self.is_withdrawn = False
        """The place was taken back: the client has gone, or another one needs it, or the hub was closed."""
        self.wants_lines = False
        """Wake the client for new log lines as well."""
        self._newest_line = START
        self._has_new_lines = False
        self._hub = hub
        self._seen = seen
        self._latest: Snapshot | None = None
        self._wakeup = threading.Event()

    def next(self, timeout: float) -> Snapshot | None:
        """The newest state that this watch has not returned yet; changes in between are merged into it.

        None when there was none within `timeout` seconds, there are new lines, or none will come (`is_over`).
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

    def tell(self, latest: Snapshot | None) -> None:
        """Wake the client: this is how its job stands now, None for the end of the watch."""
        if latest is None:
            self.is_over = True
        else:
            self._latest = latest
        self._wakeup.set()

    def tell_lines(self, newest: Position) -> None:
        """Wake the client if this is not the newest line that it was told of."""
        if newest != self._newest_line:
            self._newest_line, self._has_new_lines = newest, True
            self._wakeup.set()

    def withdraw(self) -> None:
        """Take the place back: the client waits no longer. May be called from any thread, and twice."""
        self.is_withdrawn = True
        self.tell(None)
        self.close()

    def close(self) -> None:
        """Leave the place to another client. Safe to call twice."""
        self._hub.leave(self)

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JobWatcher:
    """One process' hub, with places for so many waiting clients. Every method may be called from any thread."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._seated: dict[str, dict[Subscription, None]] = {}  # by address; of one, the oldest first
        self._watches: dict[UUID, set[Subscription]] = {}
        self._known: dict[UUID, Snapshot] = {}
        self._next_lines_look = 0.0
        self._somebody_waits = threading.Event()
        self.is_closed = False
        """The process is about to stop, so nobody waits any more."""

    def start(self) -> "JobWatcher":
        """Look in a daemon thread, which ends with the process; and anew in a process forked from this one."""
        os.register_at_fork(after_in_child=self._start_afresh)
        self._start_afresh()
        return self

    def _start_afresh(self) -> None:
        self.__init__(self._places)  # type: ignore[misc]  # a lock may have been held when we were forked
        threading.Thread(target=self._run, name="hub", daemon=True).start()

    def watch(self, job_id: UUID, seen: int = -1, client: Client | None = None) -> Subscription | None:
        """A place for a client that has seen this version of the job; None while there is none, and at shutdown.

        While all places are taken, the address that has the most of them leaves its oldest to a client whose address
        has fewer; so no address can take them all from the others.
        """
        watch = Subscription(self, job_id, seen, client.address if client else "")
        with self._lock:
            leaving = None
            if self.is_closed:
                return None
            if sum(map(len, self._seated.values())) >= self._places:
                leaving = self._most_dispensable(watch.address)
                if leaving is None:
                    return None
                self._remove(leaving)
            self._seated.setdefault(watch.address, {})[watch] = None
            self._watches.setdefault(job_id, set()).add(watch)
            if known := self._known.get(job_id):
                watch.tell(known)
            self._somebody_waits.set()
        if leaving:
            leaving.withdraw()
        if client:
            client.when_gone(watch.withdraw)
        return watch

    def _most_dispensable(self, address: str) -> Subscription | None:
        """The oldest watch of the address that has the most, if it still has as many as this one without it."""
        most = max(self._seated.values(), key=len, default={})
        return next(iter(most)) if len(most) > len(self._seated.get(address, {})) + 1 else None

    def leave(self, watch: Subscription) -> None:
        """Free a watch's place."""
        with self._lock:
            self._remove(watch)

    def _remove(self, watch: Subscription) -> None:
        mine = self._seated.get(watch.address, {})
        mine.pop(watch, None)
        if not mine:
            self._seated.pop(watch.address, None)
        others = self._watches.get(watch.job_id, set())
        others.discard(watch)
        if not others:
            self._forget(watch.job_id)
        if not self._watches:
            self._somebody_waits.clear()

    def _forget(self, job_id: UUID) -> None:
        self._watches.pop(job_id, None)
        self._known.pop(job_id, None)

    def close(self) -> None:
        """End every watch, and let none begin: the process is about to stop."""
        with self._lock:
            self.is_closed = True
            seated = [watch for watches in self._seated.values() for watch in watches]
        for watch in seated:
            watch.withdraw()

    def _run(self) -> None:
        """Look while anybody waits, for ever."""
        postgres = OutageTracker("Postgres", StoreUnavailable)
        backoff = Backoff()
        while True:
            self._somebody_waits.wait()
            began = time.monotonic()
            pause = None
            try:
                with postgres:
                    self._look()
                    pause = max(LOOK_SECONDS, (time.monotonic() - began) * (1 / LARGEST_SHARE - 1))
                    backoff.reset()
            except Exception:
                logger.exception("hub: a look failed")
            time.sleep(pause or backoff.next())

    def _look(self) -> None:
        with self._lock:
            known = {id_: self._known[id_].version if id_ in self._known else -1 for id_ in self._watches}
        for job_id, latest in jobs.changes(known).items():
            with self._lock:
                watches = self._watches.get(job_id, set())
                for watch in watches:
                    watch.tell(latest)
                if latest is None:
                    self._forget(job_id)
                elif watches:
                    self._known[job_id] = latest
        if time.monotonic() >= self._next_lines_look:
            self._next_lines_look = time.monotonic() + LINES_LOOK_SECONDS
            self._look_for_lines()

    def _look_for_lines(self) -> None:
        with self._lock:
            followed = [id_ for id_, watches in self._watches.items() if any(one.wants_lines for one in watches)]
        if followed:
            for job_id, newest in jobs.latest_lines(followed).items():
                with self._lock:
                    for watch in self._watches.get(job_id, set()):
                        if watch.wants_lines:
                            watch.tell_lines(newest)
