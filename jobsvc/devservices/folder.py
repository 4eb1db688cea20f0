"""Who has the folder of the embedded servers: one `make up` at a time, and the process that cleans up after it."""

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path

from jobsvc.devservices.server import ServiceError

CLEAN_UP_SECONDS = 60
"""How long what a killed `make up` has left may take to end, in addition to the time that its jobs have."""

LONGEST_JOBS_SECONDS = 600
"""How long jobs of a killed `make up` may go on, for programs that don't know its settings."""

WRITING_SECONDS = 1
"""How long it may take from having the lock until the process id is written."""


class Folder:
    """The folder's two locks, each held by a file descriptor for the life of a process.

    `up.lock` holds the process id of the `make up` that has it. `watcher.lock` is its watcher's, which holds it until
    nothing is left of what that one has started.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._up: int | None = None

    def take(self, wait_seconds: float) -> None:
        """Take the folder for this process and its life. Safe to call twice.

        wait_seconds: how long to wait for what a killed `make up` has left.
        Raises ServiceError where another process has the folder.
        """
        if self._up is not None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(self._root / "up.lock")
        if descriptor is None:
            raise ServiceError(
                f"make up already runs in this folder ({self._owner()}), and nothing was started: stop it by Ctrl-C "
                "there, or set PORT and JOBSVC_DEV_DIR for another one"
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._up = descriptor
        self._wait(wait_seconds)

    @property
    def exists(self) -> bool:
        """Return True if there is a folder yet."""
        return self._root.exists()

    def check_unused(self) -> None:
        """Raise ServiceError if a `make up` has the folder; wait for what a killed one has left."""
        if not self.exists:
            return
        descriptor = _lock(self._root / "up.lock")
        if descriptor is None:
            raise ServiceError(
                f"make up runs in this folder ({self._owner()}), and nothing was stopped: stop it by Ctrl-C there, "
                "and its servers with it"
            )
        os.close(descriptor)
        self._wait()

    def wait_for_watcher(self) -> None:
        """Wait for what a killed `make up` has left; not for one that lives. Raises ServiceError."""
        if not self.exists:
            return
        descriptor = _lock(self._root / "up.lock")
        if descriptor is not None:
            os.close(descriptor)
            self._wait()

    def watcher_lock(self) -> int:
        """Return a file descriptor with the watcher's lock, which is free while this process has the folder."""
        descriptor = _lock(self._root / "watcher.lock")
        if descriptor is None:
            raise ServiceError(f"{self._root}/watcher.lock is held by another process")
        return descriptor

    def _wait(self, seconds: float = LONGEST_JOBS_SECONDS) -> None:
        is_told = False
        deadline = time.monotonic() + seconds + CLEAN_UP_SECONDS
        while (descriptor := _lock(self._root / "watcher.lock")) is None:
            if not is_told:
                print(
                    "jobsvc: the last make up was killed; waiting until what it started has ended",
                    file=sys.stderr,
                    flush=True,
                )
                is_told = True
            if time.monotonic() > deadline:
                raise ServiceError("what a killed make up has started does not end")
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


def _lock(path: Path) -> int | None:
    """Return a file descriptor that holds the lock, None while another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
