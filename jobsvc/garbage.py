"""The collection of reference cycles that failed attempts have left in a process of handlers.

What an exception held goes with its traceback. But a handler may make cycles of its own, such as an exception that an
object keeps which the exception refers to; and Python's collector counts objects, not bytes, so that a few large ones
may stay for hours.
"""

import contextlib
import ctypes
import gc
import signal
import threading
import time

DELAY_SECONDS = 0.05
"""Pause before a collection, so that attempts which fail together share one."""

MAX_SHARE = 0.05
"""Share of the time that collections may take: a few ms each, since what was there before the first job is left out."""

_asked = threading.Event()
_is_set_up = False
_thread: threading.Thread | None = None


def set_up() -> None:
    """Let `collect_soon` work in this process, and collections leave out what there is now."""
    global _is_set_up
    gc.freeze()
    _is_set_up = True


def collect_soon() -> None:
    """Have cycles collected within about DELAY_SECONDS, by a thread of its own: finalizers may take any time."""
    global _thread
    if not _is_set_up:
        return
    if _thread is None:
        _thread = threading.Thread(target=_collect, name="garbage", daemon=True)
        _thread.start()
    _asked.set()


def _collect() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the main thread is to wake up for them
    trim = _trim()
    while True:
        _asked.wait()
        time.sleep(DELAY_SECONDS)
        _asked.clear()
        begun = time.monotonic()
        gc.collect()
        if trim:
            trim(0)
        time.sleep((time.monotonic() - begun) / MAX_SHARE)


def _trim() -> "ctypes._NamedFuncPointer | None":
    """Return glibc's malloc_trim, which gives memory back that was freed amid what is in use; None elsewhere."""
    with contextlib.suppress(AttributeError, OSError):
        return ctypes.CDLL(None).malloc_trim
    return None
