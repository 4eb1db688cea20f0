"""Collection of reference cycles that failed attempts leave in a child process.

What an exception refers to is freed with its traceback. But a handler may make cycles of its own, e.g. an object that
keeps an exception which refers to it. Python's collector counts objects, not bytes, so a few large ones may stay for
hours.
"""

import contextlib
import ctypes
import gc
import signal
import threading
import time

DELAY_SECONDS = 0.05
"""Pause before a collection, so that attempts that fail together share one."""

MAX_SHARE = 0.05
"""Largest share of time for collections: a few ms each, as objects from before the first job are excluded."""

LARGE = 2**20
"""Bytes from which on glibc returns each block to the system when it is freed. By default, glibc raises this threshold
up to 32 MiB, and keeps as much for each thread."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h

_asked = threading.Event()
_thread: threading.Thread | None = None


def set_up() -> None:
    """Exclude all present objects from collections, and have glibc return freed memory."""
    gc.freeze()
    if set_option := _glibc("mallopt"):
        set_option(_M_MMAP_THRESHOLD, LARGE)
        set_option(_M_TRIM_THRESHOLD, 2 * LARGE)


def collect_soon() -> None:
    """Collect cycles in about DELAY_SECONDS, in a thread of its own: finalizers may take any time."""
    global _thread
    if _thread is None:
        _thread = threading.Thread(target=_collect, name="garbage", daemon=True)
        _thread.start()
    _asked.set()


def _collect() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals must wake up the main thread
    trim = _glibc("malloc_trim")  # returns freed memory between blocks in use to the system
    while True:
        _asked.wait()
        time.sleep(DELAY_SECONDS)
        _asked.clear()
        started = time.monotonic()
        gc.collect()
        if trim:
            trim(0)
        time.sleep((time.monotonic() - started) / MAX_SHARE)


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """Return this function of glibc; None with another C library."""
    with contextlib.suppress(AttributeError, OSError):
        return getattr(ctypes.CDLL(None), name)  # type: ignore[no-any-return]
    return None
