"""Detects a dead parent, kills descendants, and leaves signals to the main thread."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn


def when_orphaned(parent: int, act: Callable[[], None]) -> None:
    """Call `act`, in a thread, once `parent` (a pid) is no longer this process' parent. Checks every second."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        act()

    with block_signals():
        threading.Thread(target=watch, name="orphan", daemon=True).start()


def descendants(pid: int) -> list[int]:
    """Return the pids of the descendants of `pid`, without orphaned ones; none if /proc doesn't list children."""
    found: list[int] = []
    parents = [pid]
    while parents:
        parent = parents.pop()
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{thread}/children").read_text().split()
                found += map(int, children)
                parents += map(int, children)
    return found


def kill_descendants() -> None:
    """Kill the descendants of this process, in any process group or session."""
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_group() -> NoReturn:
    """Kill this process, its descendants, and its process group if it leads one."""
    try:
        kill_descendants()
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(os.EX_SOFTWARE)


def stop_gently() -> None:
    """Send SIGTERM to this process, as its parent would."""
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def block_signals() -> Iterator[None]:
    """Block SIGINT and SIGTERM in threads that are started within the block.

    Otherwise another thread may receive a signal. The main thread's system call is then not interrupted, and Python
    runs signal handlers only after it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
