"""Misbehaviour of handlers towards their process: forks, changed state, unusual exceptions, ignored signals.

Each function is called in the midst of an attempt of the chaos handler. It may end the attempt by
an exception where its payload asks for a failure, and never otherwise.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MISBEHAVIOUR: dict[str, Callable[[], None]] = {}
"""What a handler does besides its work, by name."""


def mischief(act: Callable[[], None]) -> Callable[[], None]:
    MISBEHAVIOUR[act.__name__] = act
    return act


@mischief
def fork_and_return() -> None:
    """Come out of the handler in a child process as well; only the parent's result may count."""
    if os.fork() == 0:
        time.sleep(random.uniform(0, 0.2))
        raise ChildReturns


@mischief
def fork_and_exit() -> None:
    if os.fork() == 0:
        sys.exit(3)


@mischief
def fork_and_raise() -> None:
    if os.fork() == 0:
        raise Unprintable


@mischief
def fork_and_stay() -> None:
    """Leave a child behind that outlives the attempt for a moment."""
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)


@mischief
def leave_a_program() -> None:
    subprocess.Popen(["sleep", "1"])


@mischief
def leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(2,)).start()


@mischief
def leak_memory() -> None:
    """Hold 5 MB in a cycle that only the garbage collector frees."""
    cycle: list[Any] = [bytearray(5_000_000)]
    cycle.append(cycle)


@mischief
def ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


@mischief
def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})


@mischief
def leave_a_timer() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 1.5)


@mischief
def close_stdout() -> None:
    sys.stdout.close()


class ChildReturns(BaseException):
    """Raised in a forked child, where the chaos handler returns at once."""


class Unprintable(Exception):
    """An exception that can't be asked for anything."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __str__(self) -> str:
        raise ValueError("no text")


class Foreign(BaseException):
    """No Exception, as some libraries raise to get through `except Exception`."""


FAILURES: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: PlannedFailure("this attempt fails, as planned"),
    "unprintable": Unprintable,
    "foreign": Foreign,
    "exit": lambda: SystemExit(1),
    "interrupt": KeyboardInterrupt,
    "group": lambda: BaseExceptionGroup("several", [ValueError("one"), Foreign()]),
    "stop": lambda: StopIteration(5),
}
"""How an attempt can fail, by name."""


class PlannedFailure(Exception):
    pass


def sleep_through(seconds: float) -> None:
    """Sleep this long despite any exception, as a handler with a bare `except` in a loop does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:  # that is what it is for
            continue
