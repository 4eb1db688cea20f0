"""When the tasks of a process try again what failed because a server was unavailable."""

import time

from jobsvc.errors import StoreBusy, StoreUnavailable
from jobsvc.servers.outages import FIRST_PAUSE, SHUTDOWN_PAUSE_SECONDS, OutageTracker


def failed(error: type[StoreUnavailable] = StoreUnavailable, times: int = 1) -> OutageTracker:
    tracker = OutageTracker("Postgres", StoreUnavailable)
    for _ in range(times):
        with tracker:
            raise error
    return tracker


def test_pauses_grow_until_a_task_succeeds() -> None:
    tracker = failed(times=3)
    assert tracker.seconds_to_retry > 2 * FIRST_PAUSE
    assert not tracker.is_worth_a_try()
    with tracker:
        pass
    assert tracker.is_worth_a_try()
    assert tracker.retry_at <= time.monotonic()


def test_busy_server_is_tried_again_soon_and_counts_as_available() -> None:
    tracker = failed(StoreBusy, times=3)
    assert tracker.is_available
    assert 0 < tracker.seconds_to_retry <= FIRST_PAUSE


def test_shutdown_retries_at_once_and_pauses_shortly() -> None:
    tracker = failed(times=10)
    assert tracker.seconds_to_retry > SHUTDOWN_PAUSE_SECONDS
    tracker.shorten_pauses()
    assert tracker.is_worth_a_try()
    for _ in range(10):
        with tracker:
            raise StoreUnavailable
    assert 0 < tracker.seconds_to_retry <= SHUTDOWN_PAUSE_SECONDS
