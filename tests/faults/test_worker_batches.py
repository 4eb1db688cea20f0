"""Jobs that a worker took as a batch: if a process ends within it, only running attempts are affected."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Ground
from tests.support.service import Service, eventually

AGAIN = {"retry": {"max": 1, "interval": 0}}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def post(service: Service, jobs: list[dict[str, Any]]) -> list[str]:
    reply = service.client.post("/jobs/batch", json={"jobs": jobs})
    assert reply.status_code == 202, reply.text
    return list(reply.json()["jobIds"])


def all_completed(ground: Ground, job_ids: list[str], timeout: float = 30) -> None:
    left = "SELECT id::text, status, attempts FROM jobs WHERE id = ANY(%s::uuid[]) AND status <> 'COMPLETED'"
    eventually(lambda: not ground.sql(left, job_ids), timeout)


def warm_up(ground: Ground) -> None:
    """Let the worker find out that jobs are quick: from then on it takes many."""
    all_completed(ground, post(ground.service, [{}] * 200))


def around(service: Service, notes: Path, one: dict[str, Any], quick: int = 60) -> tuple[str, list[str]]:
    """Post `one` in the midst of quick ones, which note their runs; returns its id, and theirs.

    Every second one returns nothing, so its result is a note in shared memory and not a message.
    """
    ones = [
        {"type": "NOTE", "payload": {"path": str(notes), "silent": place % 2 == 0}, **AGAIN} for place in range(quick)
    ]
    job_ids = post(service, [*ones[: quick // 2], {**AGAIN, **one}, *ones[quick // 2 :]])
    middle = job_ids.pop(quick // 2)
    return middle, job_ids


def runs(notes: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in notes.read_text().splitlines())


def history(ground: Ground) -> list[tuple[str, str]]:
    """Return (job id, outcome) of the stored attempts. Quick jobs that completed have none."""
    return [(str(job), str(outcome)) for job, outcome in ground.sql("SELECT job_id, outcome FROM attempts")]


def states(ground: Ground) -> dict[tuple[str, int], int]:
    """Count the jobs by status and number of attempts."""
    return {(a, b): n for a, b, n in ground.sql("SELECT status, attempts, count(*) FROM jobs GROUP BY 1, 2")}


def attempts(ground: Ground, job_ids: list[str]) -> set[int]:
    return {n for (n,) in ground.sql("SELECT attempts FROM jobs WHERE id = ANY(%s::uuid[])", job_ids)}


def the_others_ran_once(ground: Ground, notes: Path, others: list[str]) -> None:
    all_completed(ground, others)
    assert attempts(ground, others) == {1}
    noted = runs(notes)
    assert [noted[job_id] for job_id in others] == [1] * len(others)


@pytest.mark.parametrize("how", ["exit", signal.SIGSEGV, signal.SIGKILL])
def test_handler_that_kills_its_process_loses_only_its_own_attempt(ground: Ground, notes: Path, how: Any) -> None:
    service = ground.service
    service.worker()
    warm_up(ground)
    kill = {"type": "KILL_PROCESSES", "payload": {"whom": ["child"], "signal": how, "notes": str(notes)}}
    crasher, others = around(service, notes, {"type": "CRASH"} if how == "exit" else kill)
    assert service.until(crasher, "COMPLETED")["attempts"] == 2
    the_others_ran_once(ground, notes, others)
    assert history(ground) == [(crasher, "lost")]


def test_handlers_that_kill_their_process_each_lose_one_attempt(ground: Ground, notes: Path) -> None:
    service = ground.service
    service.worker()
    warm_up(ground)
    crash = {"type": "CRASH", **AGAIN}
    note = {"type": "NOTE", "payload": {"path": str(notes)}}
    job_ids = post(service, [*[note] * 10, crash, crash] * 4)
    crashers = [job_id for place, job_id in enumerate(job_ids) if place % 12 >= 10]
    all_completed(ground, job_ids)
    the_others_ran_once(ground, notes, [job_id for job_id in job_ids if job_id not in crashers])
    assert sorted(history(ground)) == sorted((job_id, "lost") for job_id in crashers)


def test_worker_killed_during_a_batch_loses_no_job(ground: Ground, notes: Path) -> None:
    """The child process survives and reports to Postgres: finished, running and unstarted jobs."""
    service = ground.service
    worker = service.worker()
    warm_up(ground)
    killer, others = around(
        service, notes, {"type": "KILL_PROCESSES", "payload": {"whom": ["worker"], "notes": str(notes)}}, quick=100
    )
    assert service.until(killer, "COMPLETED", timeout=30)["attempts"] == 2
    the_others_ran_once(ground, notes, others)
    assert history(ground) == [(killer, "lost")]
    assert "the worker died" in worker.output


REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION USING ERRCODE = ''22000''; END';
CREATE TRIGGER refuse BEFORE UPDATE ON jobs FOR EACH ROW
    WHEN (NEW.status = 'COMPLETED' AND NEW.payload ? 'refused') EXECUTE FUNCTION refuse()
"""
"""Makes Postgres refuse the success of each job with `refused` in its payload."""


def test_result_refused_by_postgres_costs_no_other_result_when_the_worker_dies(ground: Ground, notes: Path) -> None:
    """One of the jobs stops the worker, so that its child process is left with the results of those that follow."""
    service = ground.service
    ground.sql(REFUSE)
    service.worker()
    warm_up(ground)
    [pid] = {one["pid"] for one in service.client.get("/workers").json()["workers"]}
    stop = {
        "type": "KILL_PROCESSES",
        "payload": {"whom": ["worker"], "signal": signal.SIGSTOP, "notes": str(notes)},
        **AGAIN,
    }
    quick = [
        {"type": "NOTE", "payload": {"path": str(notes), "silent": place % 2 == 0}, **AGAIN} for place in range(10)
    ]
    refused = {"type": "NOTE", "payload": {"path": str(notes), "refused": True}, "retry": {"max": 0}}
    slow = {"type": "NOTE", "payload": {"path": str(notes), "seconds": 60}, "retry": {"max": 0}}
    job_ids = post(service, [*quick, stop, *quick, refused, *quick, slow])
    slow_id, refused_id = job_ids.pop(), job_ids.pop(21)
    eventually(lambda: notes.exists() and slow_id in runs(notes), pause=0.002)
    os.kill(pid, signal.SIGKILL)
    the_others_ran_once(ground, notes, job_ids)
    assert service.until(refused_id, "FAILED")["error"]["type"] == "UnserializableResult"
    assert sorted(history(ground)) == sorted([(refused_id, "failed"), (slow_id, "lost")])


def test_killed_worker_loses_no_job_of_its_batch(ground: Ground, notes: Path) -> None:
    service = ground.service
    service.worker()
    warm_up(ground)
    slow = {"type": "NOTE", "payload": {"path": str(notes), "seconds": 3}}
    running, others = around(service, notes, slow)
    eventually(lambda: notes.exists() and running in runs(notes), pause=0.002)
    [pid] = {one["pid"] for one in service.client.get("/workers").json()["workers"]}
    os.kill(pid, signal.SIGKILL)
    assert service.until(running, "COMPLETED", timeout=30)["attempts"] == 2
    the_others_ran_once(ground, notes, others)
    assert history(ground) == [(running, "lost")]


def test_worker_killed_with_its_child_process_loses_no_job(ground: Ground, notes: Path) -> None:
    """No process is left to report, so all its started jobs count as lost when the leases lapse, and run again."""
    service = ground.service
    service.worker()
    warm_up(ground)
    kill = {"type": "KILL_PROCESSES", "payload": {"whom": ["worker", "child"], "notes": str(notes)}}
    killer, others = around(service, notes, kill)
    eventually(lambda: notes.exists() and killer in runs(notes), pause=0.002)
    died = time.monotonic()
    running = "SELECT count(*) FROM jobs WHERE attempts = 1 AND status = 'PROCESSING'"
    eventually(lambda: ground.sql(running) == [(0,)], ground.bound - (time.monotonic() - died))
    all_completed(ground, [killer, *others])
    assert {outcome for _, outcome in history(ground)} == {"lost"}
    assert set(runs(notes)) == {killer, *others}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_prefetched_jobs_are_returned_at_once(ground: Ground, notes: Path, number: signal.Signals) -> None:
    service = ground.service
    go_on = notes.with_name("go on")
    worker = service.worker()
    warm_up(ground)
    payload = {"whom": ["pool"], "signal": number, "notes": str(notes), "until": str(go_on)}
    running, others = around(service, notes, {"type": "KILL_PROCESSES", "payload": payload}, quick=100)
    service.until(running, "PROCESSING")
    eventually(lambda: states(ground) == {("COMPLETED", 1): 250, ("PROCESSING", 1): 1, ("PENDING", 0): 50})
    assert service.job(running)["status"] == "PROCESSING"
    go_on.touch()
    assert worker.wait(20) == 0
    assert service.job(running)["status"] == "COMPLETED"
    service.worker()
    the_others_ran_once(ground, notes, others)
    assert history(ground) == []


def test_quick_jobs_do_not_wait_for_a_slow_one(ground: Ground, notes: Path) -> None:
    service = ground.service
    go_on = notes.with_name("go on")
    service.worker(JOBSVC_WORKERS="2", JOBSVC_CONCURRENCY="1")
    for _ in range(3):
        warm_up(ground)
    slow, quick = around(service, notes, {"type": "UNTIL", "payload": {"path": str(go_on)}})
    all_completed(ground, quick, 15)
    assert service.job(slow)["status"] == "PROCESSING"
    go_on.touch()
    assert service.until(slow, "COMPLETED")["attempts"] == 1
    the_others_ran_once(ground, notes, quick)


def test_few_waiting_jobs_are_not_prefetched(ground: Ground) -> None:
    """Until they can run at once: none of them is shown as PROCESSING before, or returned."""
    ground.service.worker()
    warm_up(ground)
    job_ids = post(ground.service, [{"payload": {"durationMs": 1500}}, *[{}] * 4])
    all_completed(ground, job_ids)
    assert ground.sql("SELECT max(fence) FROM jobs") == [(1,)]


def test_delayed_prefetched_jobs_are_returned_once(ground: Ground) -> None:
    """Not again and again, as long as what holds them up goes on."""
    ground.service.worker()
    warm_up(ground)
    job_ids = post(ground.service, [{"payload": {"durationMs": 3000}}, *[{}] * 50])
    all_completed(ground, job_ids)
    [(most,)] = ground.sql("SELECT max(fence) FROM jobs")
    assert most <= 2


def test_crashing_child_processes_are_restarted_with_a_pause(ground: Ground, tmp_path: Path) -> None:
    """As where memory is short. The job waits, uncounted, and runs once they can."""
    deadly = tmp_path / "deadly"
    deadly.touch()
    ground.service.worker(
        JOBSVC_HANDLERS="tests.support.handlers.basic,tests.support.crashing_child", TESTS_DEADLY=str(deadly)
    )
    [job_id] = post(ground.service, [{"retry": {"max": 0}}])
    eventually(lambda: len(deadly.read_text()) >= 3)
    before = len(deadly.read_text())
    time.sleep(2)
    assert len(deadly.read_text()) - before < 10
    deadly.unlink()
    all_completed(ground, [job_id])
    assert states(ground) == {("COMPLETED", 1): 1}


def test_crashing_child_processes_delay_neither_others_nor_a_shutdown(ground: Ground, tmp_path: Path) -> None:
    """Sixteen at a time, so that a pause for each of them would take longer than a cancel or a shutdown may."""
    service, deadly, go_on = ground.service, tmp_path / "deadly", tmp_path / "go on"
    worker = service.worker(
        JOBSVC_HANDLERS="tests.support.handlers.basic,tests.support.crashing_child",
        JOBSVC_CONCURRENCY="18",
        JOBSVC_SHUTDOWN_SECONDS="1",
        TESTS_DEADLY=str(deadly),
    )
    others = post(service, [{"type": "UNTIL", "payload": {"path": str(go_on)}}] * 2)
    for job_id in others:
        service.until(job_id, "PROCESSING")
    deadly.touch()
    isolated = post(service, [{"type": "WHERE_ISOLATED", "retry": {"max": 0}}] * 16)
    eventually(lambda: deadly.read_text(), pause=0.01)
    service.client.post(f"/jobs/{others[0]}/cancel")
    service.until(others[0], "CANCELLED", timeout=6)
    died = len(deadly.read_text())
    eventually(lambda: len(deadly.read_text()) > died, pause=0.01)
    worker.popen.terminate()
    assert worker.wait(20) == 0
    assert "not stopped in time" not in worker.output
    assert attempts(ground, [others[1], *isolated]) == {0}


def test_batch_runs_in_queue_order(ground: Ground, notes: Path) -> None:
    service = ground.service
    note = {"type": "NOTE", "payload": {"path": str(notes)}}
    low = post(service, [{**note, "queue": "low"}] * 60)
    quick = {"queue": "high", "payload": {"result": 1}}
    high = post(service, [*[quick] * 150, *[{**note, "queue": "high"}, quick] * 60])[150::2]
    eventually(
        lambda: (
            service.redis().llen("rq:queue:jobsvc.low") == 60 and service.redis().llen("rq:queue:jobsvc.high") == 270
        )
    )
    service.worker()
    all_completed(ground, [*high, *low])
    assert list(runs(notes)) == [*high, *low]


def test_every_outcome_frees_the_slot(ground: Ground) -> None:
    """A worker has 256 places, so it would stand still if 2,000 jobs lost some."""
    service = ground.service
    service.worker()
    snooze = {"type": "SNOOZE", "payload": {"times": 1, "seconds": 0.1}}
    fail = {"payload": {"failAttempts": 1}, **AGAIN}
    for _ in range(2):
        post(service, [*[{}] * 600, *[{"type": "DISCARD"}] * 150, *[fail] * 125, *[snooze] * 125])
    unfinished = "SELECT status, count(*) FROM jobs WHERE finished_at IS NULL GROUP BY 1"
    eventually(lambda: not ground.sql(unfinished), 120)
    ended = ground.sql("SELECT status, count(*) FROM jobs GROUP BY 1 ORDER BY 1")
    assert ended == [("COMPLETED", 1700), ("FAILED", 300)]
    all_completed(ground, post(service, [{}] * 300))
    with service.redis() as client:
        eventually(lambda: not [*client.scan_iter("rq:wip:*"), *client.scan_iter("rq:execution*")])
        assert not list(client.scan_iter("rq:executions:*"))
