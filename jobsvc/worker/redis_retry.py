"""Waiting for Redis in a worker: RQ's calls are retried until it is available or the worker must stop."""

import contextlib
import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from redis import RedisError, ResponseError, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.exceptions import StopRequested

from jobsvc.servers.outages import FIRST_PAUSE, PROBE, Backoff, OutageTracker

logger = logging.getLogger("jobsvc.worker")

T = TypeVar("T")

PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
)
"""Errors after which a call is always retried; after others only if Redis accepts no writes."""


class WaitForRedis(Retry):
    """`retry` of a worker's connection, and of those that RQ's scheduler and job processes derive from it.

    `probe` raises RedisError unless Redis is usable. After `end`, no call waits for Redis any more: StopRequested is
    raised in the worker, and a process that it has forked exits, since only RQ's bookkeeping was left to do.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        super().__init__(NoBackoff(), -1, PASSING)
        self._probe = probe
        self._server = OutageTracker("Redis", RedisError, logger)
        self._worker = os.getpid()
        self._unwaiting_thread: int | None = None
        self._is_unavailable = False
        self._ended = mmap.mmap(-1, 1)  # 1 after `end`; memory shared with processes that the worker forks

    def __deepcopy__(self, memo: dict[int, Any]) -> "WaitForRedis":
        return self  # redis-py copies it for each connection; one process has one view of Redis

    def end(self) -> None:
        """Stop waiting for Redis, in this process and in those forked from it. Safe in a signal handler."""
        self._ended[0] = 1

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Within the block, calls in this thread don't wait: they raise errors until Redis is available again."""
        self._unwaiting_thread = threading.get_ident()
        try:
            yield
        finally:
            self._unwaiting_thread, self._is_unavailable = None, False

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """Retry `do` until Redis is available; return its result. `fail` closes the connection in between."""
        failures, backoff = 0, Backoff()
        is_unwaiting = threading.get_ident() == self._unwaiting_thread
        if is_unwaiting and self._is_unavailable:
            self._is_unavailable = not self._is_up()
            if self._is_unavailable:
                raise exceptions.ConnectionError("Redis is unavailable")
        while True:
            if self._ended[0] and not is_unwaiting and not self._is_up():
                self._stop()  # without calling `do`, which takes long if Redis hangs
            try:
                return do()
            except (*PASSING, ResponseError) as error:
                if not isinstance(error, PASSING) and self._is_up():
                    raise
                if is_unwaiting:
                    self._is_unavailable = not self._is_up()
                    fail(error, 1) if with_failure_count else fail(error)
                    raise
                failures += 1
                self._wait(backoff)
                fail(error, failures) if with_failure_count else fail(error)

    def _wait(self, backoff: Backoff) -> None:
        while True:
            until = time.monotonic() + backoff.next()
            while time.monotonic() < until and not self._ended[0]:
                time.sleep(FIRST_PAUSE)
            if self._is_up():
                return
            if self._ended[0]:
                self._stop()

    def _is_up(self) -> bool:
        # Only the worker logs an outage, also for its children.
        with self._server.on(PROBE) if os.getpid() == self._worker else contextlib.suppress(RedisError):
            self._probe()
            return True
        return False

    def _stop(self) -> None:
        if os.getpid() != self._worker:
            os._exit(os.EX_OK)
        raise StopRequested
