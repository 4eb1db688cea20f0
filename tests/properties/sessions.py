"""Runs calls one after the other, at the same time, or while another transaction is open."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError
from typing import Any

from jobsvc.errors import JobsvcError
from tests.properties.trail import Trail


class Timing(StrEnum):
    """How a call runs."""

    ALONE = "alone, unless another transaction is open"
    OPEN_AT_ROW = "stopped before its first change of a job, which it has locked"
    OPEN_AT_COMMIT = "stopped before its commit"
    WITH_NEXT = "at the same time as the next call"


BREAKPOINTS = {Timing.OPEN_AT_ROW: 19001, Timing.OPEN_AT_COMMIT: 19002}
"""Numbers of the advisory locks of the breakpoints, see trail.sql."""


@dataclass
class Call:
    """A call, and what is done with its result, or with the error that it raised."""

    act: Callable[[], Any]
    check: Callable[[Any], None]

    def run(self) -> Any:
        """Return the result, or the error if it is one that users see."""
        try:
            return self.act()
        except (JobsvcError, CycleError) as error:
            return error


_HAS_STOPPED = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
_IS_BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


IN_PROCESS_SECONDS = 0.5
"""Time after which a call is taken to wait for the open one in this process, as a single submit for another."""

STOP_SECONDS = 15.0
"""Longest time that a call is given to reach a breakpoint."""


class Sessions:
    """Where the calls run. At most one transaction is open between two steps."""

    def __init__(self, trail: Trail, pool: ThreadPoolExecutor) -> None:
        self._trail = trail
        self._pool = pool
        self._open: tuple[int, Call, Future[Any]] | None = None

    @property
    def has_open(self) -> bool:
        return self._open is not None

    def run(self, call: Call) -> None:
        """Run a call. If it waits for the open transaction, that one is ended."""
        if not self._open:
            call.check(call.run())
            return
        future = self._pool.submit(call.run)
        self._await(future, _IS_BLOCKED, IN_PROCESS_SECONDS)
        if not future.done():
            self.end_open()
        call.check(future.result())

    def run_to(self, call: Call, breakpoint_: int) -> None:
        """Run a call up to the breakpoint; what it has locked stays locked until `end_open`."""
        self.end_open()
        self._trail.fetch("SELECT pg_advisory_lock(%s, 2)", breakpoint_)
        future = self._pool.submit(call.run)
        self._open = breakpoint_, call, future
        self._await(future, _HAS_STOPPED, STOP_SECONDS)
        if future.done():  # it has changed no job
            self.end_open()

    def end_open(self) -> None:
        """Let the open transaction go on, and wait for its end."""
        if self._open:
            breakpoint_, call, future = self._open
            self._open = None
            self._trail.fetch("SELECT pg_advisory_unlock(%s, 2)", breakpoint_)
            call.check(future.result())

    def run_together(self, *calls: Call) -> None:
        """Run calls at the same time."""
        self.end_open()
        barrier = threading.Barrier(len(calls))

        def run(call: Call) -> Any:
            barrier.wait()
            return call.run()

        for call, future in [(call, self._pool.submit(run, call)) for call in calls]:
            call.check(future.result())

    def _await(self, future: Future[Any], condition: str, seconds: float) -> None:
        """Wait until the call has ended or the condition is met, for `seconds` at most."""
        deadline = time.monotonic() + seconds
        while not wait([future], timeout=0.002).done and not self._trail.fetch(condition):
            if time.monotonic() > deadline:
                return
