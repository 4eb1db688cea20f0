"""The alerts of the overview, and the values of its charts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobsvc.api.redis_view import RedisView
from jobsvc.dispatch.rq_workers import WorkerState
from jobsvc.jobs import Counted, History, QueueCounts
from jobsvc.states import Status
from jobsvc.ui.overview import LONG_WAIT_SECONDS, chart_values, find_alerts

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def worker(expires_in: int = 80) -> WorkerState:
    return WorkerState("w", "host", 1, "idle", ["default"], [], NOW, frozenset({"MAIL"}), expires_in)


def queue(name: str, oldest: float | None, is_paused: bool = False) -> QueueCounts:
    return QueueCounts(name, is_paused, dict.fromkeys(Status, Counted(0, is_complete=True)), oldest)


def test_service_that_works_has_no_alert() -> None:
    assert find_alerts(RedisView([worker()]), [queue("default", LONG_WAIT_SECONDS), queue("low", None)]) == []


@pytest.mark.parametrize("workers", [[], [worker(expires_in=1)], [worker(expires_in=1), worker(expires_in=60)]])
def test_missing_and_lost_workers_are_an_alert(workers: list[WorkerState]) -> None:
    [alert] = find_alerts(RedisView(workers), [])
    assert alert.startswith("No worker is running")
    assert find_alerts(RedisView([*workers, worker()]), []) == []


def test_problem_of_redis_is_the_first_alert_and_its_workers_are_unknown() -> None:
    assert find_alerts(RedisView(problem="Redis is down."), [queue("low", 3600.0)]) == [
        "Redis is down.",
        "Queue low: a job has been due for 1 h.",
    ]


def test_suspended_workers_are_an_alert() -> None:
    [alert] = find_alerts(RedisView([worker()], is_suspended=True), [])
    assert "rq resume" in alert


def test_paused_queue_may_wait() -> None:
    assert find_alerts(RedisView([worker()]), [queue("low", 3600.0, is_paused=True)]) == []


def test_history_without_jobs_has_empty_charts() -> None:
    shown: dict[str, Any] = chart_values(History(start=NOW, end=NOW + timedelta(hours=1), step=60, series=[]))
    assert shown["labels"] == []
    assert shown["totals"] == {"completed": 0, "retried": 0, "failed": 0}
    assert {name: (shown[name].highest, *shown[name].paths.values()) for name in ("ended", "waits", "runs")} == {
        "ended": (None, "", "", ""),
        "waits": (None, "", ""),
        "runs": (None, "", ""),
    }
