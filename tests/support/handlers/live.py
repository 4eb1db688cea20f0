"""A handler that reports as its payload says: progress and log lines, with waits in between, and ends in many ways."""

import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobsvc import Context, Discard, Snooze, handler

_libc = ctypes.CDLL(None)
_wait_until = 30.0


def _wait(path: str) -> None:
    """Until the test has made this file."""
    deadline = time.monotonic() + _wait_until
    while not Path(path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _wait_in_c(path: str) -> None:
    """The same, in calls of C that let go of the interpreter and last for a second."""
    deadline = time.monotonic() + _wait_until
    while not Path(path).exists():
        assert time.monotonic() < deadline
        _libc.sleep(1)


def _flood(ctx: Context, seconds: float) -> int:
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        ctx._keep(f"flood {number}")
    return number


def _spin(ctx: Context, count: int) -> None:
    for number in range(count):
        ctx.progress(100 * number / count, "on the way")


def _from_threads(ctx: Context, count: int) -> None:
    threads = [
        threading.Thread(target=lambda n=n: [ctx.log(f"thread {n} line {i}") for i in range(count)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _fail(message: str) -> None:
    raise ValueError(message)


def _discard(message: str) -> None:
    raise Discard(message)


def report(payload: dict[str, Any], ctx: Context) -> Any:
    """Do the steps of this attempt (of the last that there are steps for), each a list of a verb and its arguments."""
    steps = payload["attempts"][min(ctx.fence, len(payload["attempts"])) - 1]
    with_progress_and_logs: list[Any] = []
    verbs: dict[str, Callable[..., Any]] = {
        "progress": ctx.progress,
        "spin": lambda count: _spin(ctx, count),
        "log": ctx.log,
        "logging": logging.getLogger("some.library").warning,
        "lines": lambda first, last: [ctx.log(f"line {number}") for number in range(first, last + 1)],
        "threads": lambda count: _from_threads(ctx, count),
        "flood": lambda seconds: with_progress_and_logs.append(_flood(ctx, seconds)),
        "sleep": time.sleep,
        "wait": _wait,
        "wait_in_c": _wait_in_c,
        "time": lambda: with_progress_and_logs.append(time.time()),
        "fail": _fail,
        "discard": _discard,
        "snooze": lambda seconds: (_ for _ in ()).throw(Snooze(seconds)),
        "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }
    for verb, *arguments in steps:
        verbs[verb](*arguments)
    return with_progress_and_logs or None


handler("REPORT")(report)
handler("REPORT_ISOLATED", isolated=True)(report)
