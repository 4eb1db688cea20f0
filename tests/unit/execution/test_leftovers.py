"""Threads of a loop's executor: calls of ended attempts that still run take none away from others."""

from concurrent.futures import Future
from threading import Event
from typing import Any

from jobsvc.execution.leftovers import EXECUTOR_THREADS, Executor
from tests.support.service import eventually

CALLS = EXECUTOR_THREADS + 8


def test_call_has_a_thread_after_a_thread_has_skipped_cancelled_calls() -> None:
    """Python 3.11 counts a thread as idle for each cancelled call that it skips, even if it runs another one next."""
    executor, release = Executor(), Event()
    try:
        calls: list[Future[Any]] = [executor.submit(release.wait) for _ in range(CALLS)]
        running, last = calls[:EXECUTOR_THREADS], calls[-1]
        for call in calls[EXECUTOR_THREADS:-1]:
            executor.abandon(call)
        executor.abandon(running[0])
        eventually(last.running)
        for call in (*running[1:], last):
            executor.abandon(call)
        assert executor.submit(lambda: "called").result(timeout=5) == "called"
    finally:
        release.set()
        executor.shutdown()
    assert executor.abandoned == 0
