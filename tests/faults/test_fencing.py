"""Promise 4: a worker that was frozen past its lease changes nothing of what came after, in Postgres or in RQ."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rq.job import JobStatus

from tests.faults.conftest import Ground
from tests.support.service import Process, Service, eventually

LATE = "no longer this worker's"


def freeze(worker: Process) -> list[int]:
    frozen = worker.tree()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    return frozen


def thaw(frozen: list[int]) -> None:
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):  # it was killed before
            os.kill(pid, signal.SIGCONT)


def kept_by_rq(service: Service, job_id: str) -> dict[str, Any]:
    job = service.rq_job(job_id)
    return {
        "status": job.get_status(),
        "worker": job.worker_name,
        "value": job.return_value(),
        "results": len(job.results()),
        "places": service.rq_places(job_id),
        "expires": service.redis().ttl(job.key) > 0,
    }


def noted(service: Service, notes: Path, **more: Any) -> str:
    """A job that notes its runs, returns its fence, and is tried again at once."""
    retry = {"max": 3, "interval": 0}
    return service.post("NOTE", {"path": str(notes), **more.pop("payload", {})}, **{"retry": retry, **more})


@pytest.mark.parametrize("ending", ["completed", "failed"])
def test_frozen_worker_changes_nothing_of_a_completed_job(ground: Ground, tmp_path: Path, ending: str) -> None:
    service, notes = ground.service, tmp_path / "notes"
    worker = service.worker()
    job_id = noted(service, notes, payload={"seconds": 1, "fails": 1 if ending == "failed" else 0})
    eventually(lambda: service.rq_places(job_id) == ["running"])
    frozen = freeze(worker)
    service.worker()
    done = service.until(job_id, "COMPLETED", timeout=30)
    eventually(lambda: service.rq_places(job_id).count("running") == 1)  # the frozen one's own
    before = kept_by_rq(service, job_id)
    assert (before["status"], before["value"], before["results"]) == (JobStatus.FINISHED, 2, 1)
    thaw(frozen)
    eventually(lambda: LATE in worker.output)
    assert f"attempt 1 of 4 {ending}" in worker.output
    after = eventually(lambda: "running" not in service.rq_places(job_id) and kept_by_rq(service, job_id))
    assert after == {**before, "places": ["finished"]}
    assert service.job(job_id) == done
    assert [attempt["outcome"] for attempt in service.attempts(job_id)] == ["lost", "completed"]
    assert len(notes.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("first", "second"), [("completed", "completed"), ("failed", "completed"), ("failed", "failed")]
)
def test_frozen_worker_changes_nothing_of_a_job_that_runs_elsewhere(
    ground: Ground, tmp_path: Path, first: str, second: str
) -> None:
    service, notes = ground.service, tmp_path / "notes"
    worker = service.worker()
    fails = [first, second].count("failed")
    job_id = noted(service, notes, payload={"seconds": 7, "fails": fails}, retry={"max": 1, "interval": 3})
    eventually(lambda: service.rq_places(job_id) == ["running"])
    frozen = freeze(worker)
    service.worker()
    eventually(lambda: service.job(job_id)["attempts"] == 2)
    thaw(frozen)
    eventually(lambda: LATE in worker.output)
    assert f"attempt 1 of 2 {first}" in worker.output
    eventually(lambda: service.rq_places(job_id) == ["running"], 5)
    [(holder,)] = ground.sql("SELECT worker FROM jobs WHERE id = %s", job_id)
    running = kept_by_rq(service, job_id)
    assert service.job(job_id)["status"] == "PROCESSING"  # so all of this was before the second one's end
    assert (running["status"], running["worker"], running["results"]) == (JobStatus.STARTED, holder, 0)
    status, place = (JobStatus.FINISHED, "finished") if second == "completed" else (JobStatus.FAILED, "failed")
    service.until(job_id, second.upper())
    ended = eventually(lambda: service.rq_places(job_id) == [place] and kept_by_rq(service, job_id))
    assert (ended["status"], ended["results"]) == (status, 1)
    assert ended["value"] == (2 if second == "completed" else None)


def test_killed_attempt_of_a_frozen_worker_changes_nothing(ground: Ground, tmp_path: Path) -> None:
    """Then RQ's parent process reports the end, with RQ's own Retry."""
    service, notes = ground.service, tmp_path / "notes"
    worker = service.worker()
    job_id = noted(service, notes, payload={"seconds": 10}, retry={"max": 3, "interval": 1})
    eventually(lambda: service.rq_places(job_id) == ["running"])
    frozen = freeze(worker)
    child_process = max(pid for pid in frozen if os.getpgid(pid) == pid and pid != worker.popen.pid)
    service.worker()
    eventually(lambda: service.rq_places(job_id).count("running") == 2)
    os.kill(child_process, signal.SIGKILL)
    thaw(frozen)
    places = eventually(lambda: (now := service.rq_places(job_id)).count("running") == 1 and now)
    assert places == ["running"]
    assert service.rq_job(job_id).get_status() == JobStatus.STARTED
    service.until(job_id, "COMPLETED")
    eventually(lambda: service.rq_places(job_id) == ["finished"])
    assert service.job(job_id)["attempts"] == 2
