"""The hub: one thread that looks at the jobs for which clients wait, whatever the number of clients."""

import logging
import os
import threading
import time
from uuid import UUID

from jobsvc import jobs
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import START, Position, Snapshot
from jobsvc.outages import Server

logger = logging.getLogger("jobsvc.api")

LOOK_SECONDS = 0.05
"""The pause between two looks at Postgres, while anybody waits."""

LINES_LOOK_SECONDS = 0.25
"""The pause between two looks for new log lines, while anybody follows some."""

LARGEST_SHARE = 0.1
"""Of the time, looks take this at most: slow ones are made less often."""

OUTAGE_SECONDS = 1.0
"""The pause after a look that failed."""


class Watch:
    """One client's place at the hub, and its view of one job. Close it, also when nothing came of it."""

    def __init__(self, hub: "Hub", job_id: UUID, seen: int) -> None:
        self.job_id = job_id
        self.is_over = False
        """Nothing more will come: the job is gone, or the hub was closed."""
        self.wants_lines = False
        """Wake the client for new log lines as well."""
        self._newest_line = START
        self._has_new_lines = False
        self._hub = hub
        self._seen = seen
        self._latest: Snapshot | None = None
        self._bell = threading.Event()

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
            if self.is_over or not self._bell.wait(max(deadline - time.monotonic(), 0)):
                return None
            self._bell.clear()

    def tell(self, latest: Snapshot | None) -> None:
        """Wake the client: this is how its job stands now, None for the end of the watch."""
        if latest is None:
            self.is_over = True
        else:
            self._latest = latest
        self._bell.set()

    def tell_lines(self, newest: Position) -> None:
        """Wake the client if this is not the newest line that it was told of."""
        if newest != self._newest_line:
            self._newest_line, self._has_new_lines = newest, True
            self._bell.set()

    def close(self) -> None:
        """Leave the place to another client. Safe to call twice."""
        self._hub.leave(self)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Hub:
    """One process' hub, with places for so many waiting clients. Every method may be called from any thread."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._seated: set[Watch] = set()
        self._watches: dict[UUID, set[Watch]] = {}
        self._known: dict[UUID, Snapshot] = {}
        self._next_lines_look = 0.0
        self._somebody_waits = threading.Event()
        self.is_closed = False
        """The process is about to stop, so nobody waits any more."""

    def start(self) -> "Hub":
        """Look in a daemon thread, which ends with the process; and anew in a process forked from this one."""
        os.register_at_fork(after_in_child=self._start_afresh)
        self._start_afresh()
        return self

    def _start_afresh(self) -> None:
        self.__init__(self._places)  # type: ignore[misc]  # a lock may have been held when we were forked
        threading.Thread(target=self._run, name="hub", daemon=True).start()

    def watch(self, job_id: UUID, seen: int = -1) -> Watch | None:
        """A place for a client that has seen this version of the job; None while all are taken, and at shutdown."""
        watch = Watch(self, job_id, seen)
        with self._lock:
            if self.is_closed or len(self._seated) >= self._places:
                return None
            self._seated.add(watch)
            self._watches.setdefault(job_id, set()).add(watch)
            if known := self._known.get(job_id):
                watch.tell(known)
            self._somebody_waits.set()
        return watch

    def leave(self, watch: Watch) -> None:
        """Free a watch's place."""
        with self._lock:
            self._seated.discard(watch)
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
            for watch in self._seated:
                watch.tell(None)

    def _run(self) -> None:
        """Look while anybody waits, for ever."""
        postgres = Server(
            *("Postgres", StoreUnavailable, logger),
            away="clients wait until it is back",
            back="waiting clients hear of changes again",
        )
        while True:
            self._somebody_waits.wait()
            began = time.monotonic()
            pause = OUTAGE_SECONDS
            try:
                with postgres:
                    self._look()
                    pause = max(LOOK_SECONDS, (time.monotonic() - began) * (1 / LARGEST_SHARE - 1))
            except Exception:
                logger.exception("the hub stumbled, and goes on in %g s", OUTAGE_SECONDS)
            time.sleep(pause)

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
