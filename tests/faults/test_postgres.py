"""Promise 7: Postgres restarted, killed, or its connections cut. The API says 503 and recovers; outcomes are kept."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import Ground, kill
from tests.support.launcher import RQ
from tests.support.service import Process, eventually


def is_fit(reply: httpx.Response) -> bool:
    """Accepted, or refused in the way that the contract has it."""
    if reply.status_code == 503:
        return int(reply.headers["Retry-After"]) > 0 and reply.headers["Content-Type"] == "application/problem+json"
    return reply.status_code == 202


def post(ground: Ground, **body: object) -> httpx.Response:
    return ground.service.client.post("/jobs", json=body)


def runs(notes: Path) -> list[str]:
    return [line.split()[0] for line in notes.read_text().splitlines()] if notes.exists() else []


class Load:
    """Clients that post notes for as long as the block runs; what was answered, and which ids were accepted."""

    def __init__(self, ground: Ground, notes: Path) -> None:
        self._ground, self._body = ground, {"type": "NOTE", "payload": {"path": str(notes)}}
        self._over = threading.Event()
        self.replies: list[httpx.Response] = []

    def __enter__(self) -> "Load":
        self._threads = [threading.Thread(target=self._post) for _ in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _post(self) -> None:
        with httpx.Client(base_url=self._ground.service.url, timeout=60) as client:
            while not self._over.is_set():
                self.replies.append(client.post("/jobs", json=self._body))
                time.sleep(0.02)

    @property
    def accepted(self) -> list[str]:
        return [reply.json()["jobId"] for reply in list(self.replies) if reply.status_code == 202]


def stop_and_start(ground: Ground) -> None:
    ground.postgres.stop()
    ground.postgres.start()


def kill_and_start(ground: Ground) -> None:
    kill(ground.postgres)
    ground.postgres.start()


def cut(ground: Ground) -> None:
    for _ in range(20):
        ground.cut_connections()
        time.sleep(0.1)


@pytest.mark.parametrize("fault", [stop_and_start, kill_and_start, cut])
def test_outage_under_load_loses_nothing_and_runs_nothing_twice(
    ground: Ground, tmp_path: Path, fault: Callable[[Ground], None]
) -> None:
    service, notes = ground.service, tmp_path / "notes"
    service.worker(JOBSVC_WORKERS="2")
    running = service.post("NOTE", {"path": str(tmp_path / "running"), "seconds": 2}, retry={"max": 3, "interval": 0})
    service.until(running, "PROCESSING")
    with Load(ground, notes) as load:
        eventually(lambda: load.accepted)
        fault(ground)
        before = len(load.accepted)
        eventually(lambda: len(load.accepted) > before)  # without a restart of the API
    assert all(is_fit(reply) for reply in load.replies), [reply.text for reply in load.replies if not is_fit(reply)]
    for job_id in (running, *load.accepted):
        job = service.until(job_id, "COMPLETED", timeout=60)
        assert (job["attempts"], job["error"]) == (1, None)
    assert runs(tmp_path / "running") == [running]
    assert set(load.accepted) <= set(runs(notes))  # what was answered 503 may have been stored all the same
    assert len(runs(notes)) == len(set(runs(notes)))
    assert service.alive(service.api)


def test_cut_idle_connections_cost_no_request(ground: Ground) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(reply.status_code == 202 for reply in pool.map(lambda _: post(ground), range(40)))
    assert ground.cut_connections() > 0
    assert is_fit(post(ground))
    eventually(lambda: [post(ground).status_code for _ in range(10)] == [202] * 10)


def test_post_interrupted_in_its_commit_gets_no_202(ground: Ground) -> None:
    """A deferred trigger holds the commit up, so that it can be cut off right there."""
    ground.sql(
        "CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END'"
    )
    ground.sql(
        "CREATE CONSTRAINT TRIGGER hold_up AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION hold_up()"
    )
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(post, ground)
        committing = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%INSERT INTO jobs%' AND wait_event = 'PgSleep'"
        eventually(lambda: ground.sql(committing))
        ground.cut_connections()
        assert reply.result().status_code == 503
        assert is_fit(reply.result())
    assert ground.sql("SELECT count(*) FROM jobs") == [(0,)]
    assert ground.service.redis().llen("rq:queue:jobsvc.default") == 0
    ground.sql("DROP TRIGGER hold_up ON jobs")
    assert post(ground).status_code == 202


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED"])
def test_worker_keeps_results_during_an_outage(ground: Ground, tmp_path: Path, ending: str) -> None:
    """And one that failed for good stays failed: its handler is not run again."""
    service, notes = ground.service, tmp_path / "notes"
    worker = service.worker()
    payload = {"path": str(notes), "seconds": 1, "fails": int(ending == "FAILED")}
    job_id = service.post("NOTE", payload, retry={"max": 0})
    service.until(job_id, "PROCESSING")
    kill(ground.postgres)
    eventually(lambda: "result waits for Postgres" in worker.output)
    ground.postgres.start()
    job = service.until(job_id, ending, timeout=30)
    assert job["attempts"] == 1
    assert runs(notes) == [job_id]


def stop_for_a_while(ground: Ground) -> None:
    ground.postgres.stop()
    time.sleep(ground.LEASE + 1)
    ground.postgres.start()


def recover_slowly(ground: Ground) -> None:
    """Postgres accepts no connection while it recovers; here, for longer than a lease."""
    kill(ground.postgres)
    (ground.postgres.data / "recovery.signal").touch()
    with (ground.postgres.data / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"restore_command = 'sleep {ground.LEASE / 2}; false'\nhot_standby = off\n")
    ground.postgres.start()
    [(up,)] = ground.sql("SELECT extract(epoch FROM now() - pg_postmaster_start_time())::float")
    assert up > ground.LEASE


@pytest.mark.parametrize("outage", [stop_for_a_while, recover_slowly])
def test_outage_longer_than_the_lease_interrupts_no_running_job(
    ground: Ground, outage: Callable[[Ground], None]
) -> None:
    service = ground.service
    service.worker(JOBSVC_WORKERS="3")
    posted = [service.post(payload={"durationMs": 9000}, retry={"max": 1, "interval": 0}) for _ in range(3)]
    for job_id in posted:
        service.until(job_id, "PROCESSING")
    outage(ground)
    for job_id in posted:
        job = service.until(job_id, "COMPLETED", timeout=40)
        assert (job["attempts"], job["error"]) == (1, None)


def impatient_worker(ground: Ground, job_id: str) -> Process:
    """A worker that checks its jobs every second, and for which RQ's limit on this one is five seconds."""
    service = ground.service
    eventually(lambda: service.rq_places(job_id) == ["queue"])
    service.redis().hset(f"rq:job:{job_id}", "timeout", 5 - 60)
    command = (RQ, "worker", "-c", "jobsvc.rqsettings", "-S", "json", "-w", "jobsvc.worker.JobsvcWorker")
    return service.run(*command, "--job-monitoring-interval", "1")


def test_result_may_wait_longer_than_the_rq_timeout(ground: Ground, tmp_path: Path) -> None:
    """RQ kills a job's process a minute after its timeout; here that is made to be five seconds after its start."""
    service, notes = ground.service, tmp_path / "notes"
    job_id = service.post("NOTE", {"path": str(notes), "seconds": 2}, retry={"max": 1, "interval": 0})
    worker = impatient_worker(ground, job_id)
    service.until(job_id, "PROCESSING")
    ground.postgres.stop()
    eventually(lambda: "result waits for Postgres" in worker.output)
    time.sleep(6)  # so five seconds have passed for sure
    ground.postgres.start()
    assert service.until(job_id, "COMPLETED", timeout=30)["attempts"] == 1
    assert runs(notes) == [job_id]
