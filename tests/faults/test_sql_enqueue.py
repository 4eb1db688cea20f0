"""SQL enqueue and outages: of Postgres at start and later, and of whole processes."""

import sys
from pathlib import Path

import pytest

from tests.faults.conftest import Ground, kill
from tests.support.servers import flask_db, upgrade
from tests.support.service import WORKERS, eventually
from tests.support.sql_client import application, committed, enqueue

LONG_SWEEP = {"JOBSVC_SWEEP_SECONDS": "30"}
TYPES = "SELECT name FROM job_types"


@pytest.mark.parametrize("kind", ["API", *sorted(WORKERS)])
def test_process_that_starts_without_postgres_registers_its_types_later(ground: Ground, kind: str) -> None:
    service = ground.service
    if kind == "API":
        kill(service.api)
    ground.sql("DELETE FROM job_types")
    ground.postgres.stop()
    if kind == "API":
        service.api = process = service.run(sys.executable, "-m", "jobsvc.serve")
        eventually(service.answers, 20)
    else:
        process = service.worker(kind)
    ground.postgres.start()
    if kind == "stock":  # it has no relay
        service.until(service.post(), "COMPLETED", timeout=30)
    eventually(lambda: ("TEST_JOB",) in ground.sql("SELECT name FROM job_types"))
    assert service.alive(process)


def test_committed_jobs_run_although_every_process_was_killed(ground: Ground) -> None:
    service = ground.service
    for process in service.processes:
        kill(process)
    job_id = committed(service)
    service.processes.clear()
    service.api = service.run(sys.executable, "-m", "jobsvc.serve")
    eventually(service.answers, 20)
    service.worker()
    service.until(job_id, "COMPLETED")


def test_restarted_postgres_notifies_again(tmp_path: Path) -> None:
    ground = Ground(tmp_path, **LONG_SWEEP)
    try:
        ground.service.worker()
        ground.service.until(committed(ground.service), "COMPLETED")
        ground.postgres.stop()
        ground.postgres.start()
        listeners = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN %%'"
        eventually(lambda: len(ground.sql(listeners)) == 2, 20)
        ground.service.until(committed(ground.service), "COMPLETED", timeout=15)
    finally:
        ground.stop()


def _outages(output: str) -> list[int]:
    """Count the lines about the start and about the end of an outage."""
    return [output.count(f"Postgres: {what}") for what in ("unavailable", "available again")]


def test_process_that_starts_before_postgres_and_the_tables_logs_each_outage_once(ground: Ground) -> None:
    service = ground.service
    kill(service.api)
    service.processes.clear()
    flask_db("downgrade", "0010", env=ground.env)
    ground.postgres.stop()
    service.api = service.run(sys.executable, "-m", "jobsvc.serve")
    worker = service.worker()
    for process in service.processes:
        eventually(lambda process=process: "Postgres: unavailable" in process.output)
    ground.postgres.start()
    upgrade(ground.env)
    # The outage of Postgres, and that of the tables if a connection worked before.
    eventually(lambda: _outages(service.api.output) in ([1, 1], [2, 2]), 30)
    eventually(lambda: "Postgres: available again" in worker.output, 30)
    eventually(lambda: ground.sql("SELECT 1 FROM job_types WHERE name = 'TEST_JOB'"))
    service.until(committed(service), "COMPLETED")
    assert service.alive(worker)


@pytest.mark.parametrize("kind", sorted(WORKERS))
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_open_transaction_that_replaced_a_job_stalls_no_other_job(ground: Ground, kind: str, end: str) -> None:
    service = ground.service
    first = service.post(uniqueKey="k", payload={"result": "first"})
    others = [service.post() for _ in range(3)]
    with application(service) as connection:
        assert enqueue(connection, uniqueKey="k", payload={"result": "second"}, onConflict="replace") == first
        service.worker(kind)
        for job_id in others:
            service.until(job_id, "COMPLETED")
        assert service.job(first)["status"] == "PENDING"
        getattr(connection, end)()
    job = service.until(first, "COMPLETED", timeout=30)
    assert (job["result"], job["attempts"]) == ("second" if end == "commit" else "first", 1)
