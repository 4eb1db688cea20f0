"""Processes that don't outlive the one that they depend on, and threads that don't take signals from the main one."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def when_orphaned(parent: int, act: Callable[[], None]) -> None:
    """Call `act`, from a thread, once the process `parent` is this one's parent no more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        act()

    with signals_kept():
        threading.Thread(target=watch, name="orphan", daemon=True).start()


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
