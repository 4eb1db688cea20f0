"""Locks on the folder of the embedded servers: one `jobsvc up` at a time owns it."""

import contextlib
import os
import sys
import time
from pathlib import Path

from jobsvc.devservices.server import ServiceError, lock

CLEANUP_SECONDS = 60
"""Longest time until the processes of a killed `jobsvc up` have ended, not counting the time for its jobs."""

LONGEST_JOBS_SECONDS = 600
"""The time for its jobs, for programs that don't know its settings."""

WRITING_SECONDS = 1
"""Longest time from taking `up.lock` until the process id is written to it."""


class Folder:
    """The two locks of the folder `root`, each kept by a file descriptor as long as a process lives.

    `up.lock` contains the process id of the `jobsvc up` that owns the folder. `watcher.lock` belongs to its watcher
    until all processes that `jobsvc up` started have ended.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._up: int | None = None

    @property
    def exists(self) -> bool:
        """True if there is such a folder."""
        return self._root.exists()

    def take(self, jobs_seconds: float) -> None:
        """Own the folder from now on; waits for the processes of a killed `jobsvc up`. Safe to call twice.

        jobs_seconds: the time that their jobs have to end. Raises ServiceError if another process owns the folder.
        """
        if self._up is not None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        self._up = self._lock_up(
            "already runs in this folder",
            "nothing was started: stop it by Ctrl-C there, or set PORT and JOBSVC_DEV_DIR for another one",
        )
        os.ftruncate(self._up, 0)
        os.write(self._up, str(os.getpid()).encode())
        self._wait(jobs_seconds)

    def check_unused(self) -> None:
        """Wait for the processes of a killed `jobsvc up`. Raises ServiceError if a running one owns the folder."""
        if self.exists:
            what = "nothing was stopped: stop it by Ctrl-C there, and its servers with it"
            os.close(self._lock_up("runs in this folder", what))
            self._wait()

    def wait_for_watcher(self) -> None:
        """Wait for the processes of a killed `jobsvc up`, if no running one owns the folder. Raises ServiceError."""
        if self.exists and (descriptor := lock(self._root / "up.lock")) is not None:
            os.close(descriptor)
            self._wait()

    def watcher_lock(self) -> int:
        """Return a file descriptor with the watcher's lock, which is free while this process owns the folder."""
        descriptor = lock(self._root / "watcher.lock")
        if descriptor is None:
            raise ServiceError(f"another process has locked {self._root}/watcher.lock")
        return descriptor

    def _lock_up(self, state: str, advice: str) -> int:
        descriptor = lock(self._root / "up.lock")
        if descriptor is None:
            raise ServiceError(f"jobsvc up {state} ({self._owner()}), and {advice}")
        return descriptor

    def _wait(self, jobs_seconds: float = LONGEST_JOBS_SECONDS) -> None:
        is_announced = False
        deadline = time.monotonic() + jobs_seconds + CLEANUP_SECONDS
        while (descriptor := lock(self._root / "watcher.lock")) is None:
            if not is_announced:
                print("jobsvc: the last jobsvc up was killed; waiting for its processes to end", file=sys.stderr)
                is_announced = True
            if time.monotonic() > deadline:
                raise ServiceError("the processes of a killed jobsvc up have not ended")
            time.sleep(0.05)
        os.close(descriptor)

    def _owner(self) -> str:
        deadline = time.monotonic() + WRITING_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if pid := (self._root / "up.lock").read_text():
                    return f"process {pid}"
            time.sleep(0.02)
        return "its process is just starting"
