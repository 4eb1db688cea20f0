"""Log lines of running attempts when a server or a worker fails: none is lost that can be kept, none is there twice.

Members of the class in test_live_progress.py: Postgres unavailable while lines are stored, and when the attempt ends; a
worker killed with its processes, or alone, so that its child process ends what runs; a worker that is stopped;
an attempt that goes on after its lease was lost.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Ground, kill
from tests.support.service import eventually


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(
        tmp_path_factory.mktemp("ground"), JOBSVC_HANDLERS="tests.support.handlers.live", JOBSVC_SHUTDOWN_SECONDS="1"
    )
    yield ground
    ground.stop()


def post(ground: Ground, *attempts: list[list[Any]], retries: int = 0) -> str:
    return ground.service.post("REPORT", {"attempts": attempts}, retry={"max": retries, "interval": 0.1})


def lines(ground: Ground, job_id: str, attempt: int = 0) -> list[str]:
    attempts = ground.service.attempts(job_id)
    return [line["message"] for line in attempts[attempt]["logs"]] if attempts else []


def numbered(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last + 1)]


def stored(ground: Ground, job_id: str) -> int:
    [(last,)] = ground.sql("SELECT coalesce(max(last_line), 0) FROM attempt_lines WHERE job_id = %s", job_id)
    return int(last)


@pytest.mark.parametrize("kind", ["pool", "stock"])
def test_lines_logged_during_an_outage_of_postgres_are_stored_after_it(
    ground: Ground, tmp_path: Path, kind: str
) -> None:
    worker = ground.service.worker(kind)
    signal_files = [str(tmp_path / name) for name in "abc"]
    job_id = post(
        ground,
        [
            ["lines", 1, 2],
            ["wait", signal_files[0]],
            ["lines", 3, 4],
            ["sleep", 1.5],
            ["lines", 5, 6],
            ["progress", 60],
            ["wait", signal_files[1]],
            ["lines", 7, 7],
        ],
    )
    eventually(lambda: stored(ground, job_id) == 2)
    ground.postgres.stop()
    Path(signal_files[0]).touch()
    # As long as the handler sleeps, and for a few tries of the worker.
    eventually(lambda: "Postgres: unavailable" in worker.output or "can't store" in worker.output)
    ground.postgres.start()
    eventually(lambda: stored(ground, job_id) == 6)
    eventually(lambda: ground.service.job(job_id)["progress"], 5)
    assert lines(ground, job_id) == numbered(1, 6)
    # And now as it ends.
    ground.postgres.stop()
    Path(signal_files[1]).touch()
    ground.postgres.start()
    assert ground.service.until(job_id, "COMPLETED", timeout=30)["progress"]["percent"] == 60
    assert lines(ground, job_id) == numbered(1, 7)
    kill(worker)


def test_lines_of_a_killed_workers_attempt_are_kept(ground: Ground) -> None:
    worker = ground.service.worker()
    job_id = post(ground, [["lines", 1, 3], ["sleep", 60]], [["lines", 1, 1]], retries=1)
    eventually(lambda: stored(ground, job_id) == 3)
    kill(worker)
    other = ground.service.worker()
    ground.service.until(job_id, "COMPLETED", timeout=30)
    assert [one["outcome"] for one in ground.service.attempts(job_id)] == ["lost", "completed"]
    assert lines(ground, job_id, 0) == numbered(1, 3)
    assert lines(ground, job_id, 1) == numbered(1, 1)
    kill(other)


def test_child_process_that_outlives_its_worker_stores_the_lines(ground: Ground) -> None:
    worker = ground.service.worker()
    job_id = post(ground, [["lines", 1, 3], ["sleep", 1.6], ["lines", 4, 5], ["sleep", 60]])
    eventually(lambda: stored(ground, job_id) == 3)
    eventually(lambda: stored(ground, job_id) == 5)
    [main] = [pid for pid in worker.tree() if os.getpgid(pid) == worker.popen.pid and pid != worker.popen.pid][:1]
    os.kill(main, signal.SIGKILL)
    ground.service.until(job_id, "FAILED", timeout=30)
    [attempt] = ground.service.attempts(job_id)
    assert attempt["outcome"] == "lost"
    assert lines(ground, job_id) == numbered(1, 5)
    kill(worker)


def test_lines_of_a_returned_attempt_are_stored_once(ground: Ground) -> None:
    worker = ground.service.worker()
    job_id = post(ground, [["lines", 1, 2], *[["sleep", 0.1]] * 300], [["lines", 1, 1]])
    eventually(lambda: stored(ground, job_id) == 2)
    worker.signal(signal.SIGTERM)
    worker.wait()
    [attempt] = ground.service.attempts(job_id)
    assert attempt["outcome"] == "handed-back"
    assert lines(ground, job_id) == numbered(1, 2)
    other = ground.service.worker()
    ground.service.until(job_id, "COMPLETED")
    assert lines(ground, job_id, 1) == numbered(1, 1)
    kill(other)


def test_attempt_without_its_lease_adds_no_line(ground: Ground) -> None:
    worker = ground.service.worker()
    job_id = post(ground, [["lines", 1, 2], ["sleep", 2], ["lines", 3, 4], ["sleep", 2]], [["sleep", 2]], retries=1)
    eventually(lambda: stored(ground, job_id) == 2)
    ground.sql(
        "UPDATE jobs SET lease_expires_at = now() - interval '1 h', fence = fence + 1, status = 'FAILED',"
        " finished_at = now() WHERE id = %s",
        job_id,
    )
    last = post(ground, [["lines", 1, 1]])
    ground.service.until(last, "COMPLETED")
    assert stored(ground, job_id) == 2
    kill(worker)
