"""Progress of a running attempt is visible in time, and each log line once, whatever the attempt does next.

The class: what was said last waits for something else to be said, or for the end. Its members: the first progress of
an attempt, the last one of several, progress and lines before a call that lasts (in Python, or in C without the
interpreter), lines of `ctx.log`, of `logging` and of threads; under each kind of worker (one thread, several, a process
for each attempt, stock `rq worker`). And what then must not be lost or doubled: lines of an attempt that completes,
fails, snoozes, is discarded, times out, is cancelled, is returned, dies, or whose worker dies; while Postgres
is unavailable; more lines than are kept.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import empty
from tests.support.service import Process, Service, eventually

KINDS = {
    "pool": ("pool", {}, "REPORT"),
    "threads": ("pool", {"JOBSVC_CONCURRENCY": "3"}, "REPORT"),
    "isolated": ("pool", {"JOBSVC_CONCURRENCY": "3"}, "REPORT_ISOLATED"),
    "stock": ("stock", {}, "REPORT"),
}


class Live:
    """A service with a worker of one kind."""

    def __init__(self, kind: str) -> None:
        empty()
        self.kind = kind
        worker, env, self.type = KINDS[kind]
        self.service = Service({"JOBSVC_HANDLERS": "tests.support.handlers.live", "JOBSVC_LEASE_SECONDS": "3", **env})
        self.worker: Process = self.service.worker(worker)

    def post(self, *attempts: list[list[Any]], **body: Any) -> str:
        return self.service.post(self.type, {"attempts": attempts}, **{"retry": {"max": 0}, **body})

    def progress(self, job_id: str) -> Any:
        return (self.service.job(job_id)["progress"] or {}).get("percent")

    def lines(self, job_id: str, attempt: int = -1) -> list[str]:
        attempts = self.service.attempts(job_id)
        return [line["message"] for line in attempts[attempt]["logs"]] if attempts else []

    def ended(self, job_id: str) -> dict[str, Any]:
        return self.service.until(job_id, "COMPLETED", "FAILED", "CANCELLED")


@pytest.fixture(scope="module", params=list(KINDS))
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    live = Live(request.param)
    yield live
    assert live.service.alive(live.worker), live.worker.output
    live.service.close()


def on(*kinds: str) -> pytest.MarkDecorator:
    """Run a test on workers of these kinds alone, where the others have the same code."""
    return pytest.mark.parametrize("live", kinds, indirect=True, scope="module")


@pytest.fixture
def signal_file(tmp_path: Path) -> Path:
    """A file for which a handler waits."""
    return tmp_path / "go on"


def test_last_progress_is_visible_without_a_further_call(live: Live, signal_file: Path) -> None:
    job_id = live.post([["progress", 10], ["progress", 50, "halfway"], ["wait_in_c", str(signal_file)]])
    eventually(lambda: live.progress(job_id) == 50, 5)
    assert live.service.job(job_id)["status"] == "PROCESSING"
    signal_file.touch()
    live.ended(job_id)


@on("pool", "stock")
def test_progress_is_visible_within_half_a_second(live: Live) -> None:
    job_id = live.post([verb for n in range(1, 5) for verb in (["time"], ["progress", n], ["sleep", 0.75])])
    seen: dict[Any, float] = {}
    while live.service.job(job_id)["status"] not in ("COMPLETED", "FAILED"):
        seen.setdefault(live.progress(job_id), time.time())
        time.sleep(0.02)
    called = live.service.job(job_id)["result"]
    # The machine may be busy with something else for a moment; a fault makes all of them late.
    assert sorted(seen.get(n, float("inf")) - called[n - 1] for n in range(1, 5))[1] < 0.5


@on("threads", "stock")
def test_last_of_many_progress_calls_is_visible(live: Live, signal_file: Path) -> None:
    job_id = live.post([["spin", 50_000], ["progress", 99, "last"], ["wait_in_c", str(signal_file)]])
    eventually(lambda: live.progress(job_id) == 99, 10)
    [(version,)] = live.service.sql("SELECT version FROM jobs WHERE id = %s", job_id)
    assert version < 50  # one each 0.2 s is stored
    signal_file.touch()
    live.ended(job_id)


def test_lines_of_a_running_attempt_are_visible(live: Live, signal_file: Path) -> None:
    steps = [["log", "by ctx.log"], ["logging", "by a library"], ["threads", 3], ["wait_in_c", str(signal_file)]]
    job_id = live.post([*steps, ["log", "after"]])
    lines = eventually(lambda: live.lines(job_id), 5)
    [attempt] = live.service.attempts(job_id)
    assert (attempt["number"], attempt["outcome"], attempt["finishedAt"]) == (1, None, None)
    assert attempt["logs"][1]["level"] == "WARNING"
    assert lines[:2] == ["by ctx.log", "by a library"]
    assert sorted(lines[2:]) == sorted(f"thread {n} line {i}" for n in range(4) for i in range(3))
    signal_file.touch()
    live.ended(job_id)
    assert live.lines(job_id) == [*lines, "after"]


@on("pool")
def test_log_lines_do_not_change_the_etag(live: Live, signal_file: Path) -> None:
    job_id = live.post([["sleep", 0.1], ["log", "first"], ["wait", str(signal_file)]])
    live.service.until(job_id, "PROCESSING")
    tag = live.service.client.get(f"/jobs/{job_id}").headers["ETag"]
    eventually(lambda: live.lines(job_id), 5)
    assert live.service.client.get(f"/jobs/{job_id}", headers={"If-None-Match": tag}).status_code == 304
    signal_file.touch()
    live.ended(job_id)


@on("pool", "stock")
def test_short_attempt_stores_nothing_before_its_result(live: Live) -> None:
    job_ids = [live.post([["lines", 1, 3]]) for _ in range(5)]
    for job_id in job_ids:
        live.ended(job_id)
        assert live.lines(job_id) == ["line 1", "line 2", "line 3"]
    assert live.service.sql("SELECT count(*) FROM attempt_lines WHERE job_id::text = ANY(%s)", job_ids) == [(0,)]


ENDS: dict[str, list[list[Any]]] = {
    "failed": [["fail", "no"]],
    "discarded": [["discard", "no"]],
    "snoozed": [["snooze", 0.1]],
    "timeout": [["sleep", 0.1]] * 50,
    "lost": [["die"]],
}


def test_lines_stored_before_and_with_the_result_appear_once(live: Live) -> None:
    outcomes = ["failed", "snoozed", "timeout"] if live.kind == "stock" else list(ENDS)
    if live.kind == "threads":
        outcomes.remove("lost")  # others in that process would be lost, too
    before = [["lines", 1, 2], ["sleep", 1.6], ["lines", 3, 4]]
    job_ids = {
        outcome: live.post([*before, *ENDS[outcome]], [["lines", 1, 2]], retry={"max": 1, "interval": 0.1}, timeout=2.2)
        for outcome in outcomes
    }
    for outcome, job_id in job_ids.items():
        live.ended(job_id)
        first, *second = live.service.attempts(job_id)
        assert first["outcome"] == outcome
        [(stored,)] = live.service.sql("SELECT count(*) FROM attempt_lines WHERE job_id = %s", job_id)
        assert stored >= 1
        lines = live.lines(job_id, 0)
        assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
        # What was said last may die with the process.
        assert len(lines) == 4 or (outcome == "lost" and len(lines) >= 2)
        assert [[line["message"] for line in one["logs"]] for one in second] == (
            [] if outcome == "discarded" else [["line 1", "line 2"]]
        )


@on("isolated", "stock")
def test_lines_of_a_cancelled_attempt_appear_once_and_are_deleted_with_the_job(live: Live) -> None:
    job_id = live.post([["lines", 1, 2], *[["sleep", 0.1]] * 100])
    eventually(lambda: live.lines(job_id), 5)
    assert live.service.client.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert live.ended(job_id)["status"] == "CANCELLED"
    assert live.lines(job_id) == ["line 1", "line 2"]
    assert live.service.client.delete(f"/jobs/{job_id}").status_code == 204
    assert live.service.sql("SELECT count(*) FROM attempt_lines WHERE job_id = %s", job_id) == [(0,)]


@on("pool", "stock")
def test_many_log_lines_take_bounded_memory(live: Live) -> None:
    job_id = live.post([["flood", 2.7], ["sleep", 0.6], ["log", "last"]])
    peak = 0
    while live.service.job(job_id)["status"] not in ("COMPLETED", "FAILED"):
        peak = max(peak, max(psutil.Process(pid).memory_info().rss for pid in live.worker.tree()))
        time.sleep(0.2)
    [number] = live.service.job(job_id)["result"]
    lines = live.lines(job_id)
    assert lines[0] == f"{number + 1 - 999} earlier lines dropped"
    assert lines[1:] == [*(f"flood {n}" for n in range(number - 997, number + 1)), "last"]
    [(rows, size)] = live.service.sql(
        "SELECT count(*), sum(octet_length(lines::text)) FROM attempt_lines WHERE job_id = %s", job_id
    )
    assert rows <= 8
    assert size < 1024 * 1024
    assert peak < 200 * 1024 * 1024
