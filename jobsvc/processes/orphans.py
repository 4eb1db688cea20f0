"""Processes that don't outlive the one that they depend on, and threads that don't take signals from the main one."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn


def when_orphaned(parent: int, act: Callable[[], None]) -> None:
    """Call `act`, from a thread, once the process `parent` is this one's parent no more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        act()

    with signals_kept():
        threading.Thread(target=watch, name="orphan", daemon=True).start()


def descendants(pid: int) -> list[int]:
    """Return the ids of the processes below this one, as far as their parents live; none where Linux doesn't tell."""
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
    """Kill the processes below this one, in whatever group or session they are."""
    for pid in descendants(os.getpid()):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_group() -> NoReturn:
    """End this process at once, and with it its group, if that is its own, and the processes below it."""
    try:
        kill_descendants()
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(os.EX_SOFTWARE)


def stop_gently() -> None:
    """Tell this process to stop, as its parent would have."""
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Threads started within don't take SIGINT and SIGTERM.

    Of two that come at once, one may go to another thread, which may then run off with both; the
    main thread would sleep on in its system call, and Python run the handlers only after that.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
