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

LARGE = 2**20
"""Bytes from which on glibc gives each piece of memory back as it is freed. Left alone it raises this up to 32 MiB, and
keeps as much for each thread."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

_asked = threading.Event()
_is_set_up = False
_thread: threading.Thread | None = None


def set_up() -> None:
    """Let `collect_soon` work in this process, and collections leave out what there is now."""
    global _is_set_up
    gc.freeze()
    if set_option := _glibc("mallopt"):
        set_option(_M_MMAP_THRESHOLD, LARGE)
        set_option(_M_TRIM_THRESHOLD, 2 * LARGE)
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
    trim = _glibc("malloc_trim")  # gives memory back that was freed amid what is in use
    while True:
        _asked.wait()
        time.sleep(DELAY_SECONDS)
        _asked.clear()
        begun = time.monotonic()
        gc.collect()
        if trim:
            trim(0)
        time.sleep((time.monotonic() - begun) / MAX_SHARE)


def _glibc(name: str) -> "ctypes._NamedFuncPointer | None":
    """Return this function of glibc; None where there is another library."""
    with contextlib.suppress(AttributeError, OSError):
        return getattr(ctypes.CDLL(None), name)  # type: ignore[no-any-return]
    return None
