"""Workflows survive kills, an emptied Redis, and an outage of Postgres."""

import time
from typing import Any

import pytest

from tests.faults.conftest import Ground, kill
from tests.support.service import Service, eventually


@pytest.fixture
def service(ground: Ground) -> Service:
    return ground.service


def batch(service: Service, *jobs: dict[str, Any]) -> list[str]:
    reply = service.client.post("/jobs/batch", json={"jobs": jobs})
    assert reply.status_code == 202, reply.text
    return list(reply.json()["jobIds"])


def chain(service: Service, length: int, **more: Any) -> list[str]:
    """Post jobs each of which depends on the one before."""
    later = [{"ref": f"j{n}", "dependsOn": [f"j{n - 1}"], **more} for n in range(1, length)]
    return batch(service, {"ref": "j0", **more}, *later)


def check_order(ground: Ground) -> None:
    """Check that no job started before all it depends on had ended."""
    early = ground.sql(
        "SELECT dependent_id FROM dependencies JOIN jobs AS needed ON needed.id = dependency_id"
        " JOIN jobs AS later ON later.id = dependent_id WHERE later.started_at < needed.finished_at"
    )
    assert early == []
    assert ground.sql("SELECT FROM jobs WHERE status = 'BLOCKED'") == []


@pytest.mark.parametrize("kind", ["pool", "stock"])
def test_killed_workers_leave_no_job_blocked(ground: Ground, service: Service, kind: str) -> None:
    ids = chain(service, 8, payload={"durationMs": 200})
    for n in (1, 4):
        worker = service.worker(kind)
        service.until(ids[n], "PROCESSING", "COMPLETED")
        kill(worker)
    service.worker(kind)
    service.until(ids[-1], "COMPLETED", timeout=60)
    check_order(ground)


def test_killed_relays_leave_no_dependent_blocked(ground: Ground, service: Service) -> None:
    first = service.post(payload={"durationMs": 500})
    for _ in range(3):
        batch(service, *[{"dependsOn": [first], "delay": 3600}] * 900)
    worker = service.worker()
    eventually(lambda: ground.status(first) == "COMPLETED", pause=0.001)
    kill(worker)
    kill(service.api)
    assert ground.sql("SELECT count(*) FROM jobs WHERE status = 'SCHEDULED'")[0][0] >= 1000
    service.worker()
    eventually(lambda: ground.sql("SELECT count(*) FROM jobs WHERE status = 'SCHEDULED'") == [(2700,)])
    assert ground.sql("SELECT FROM pending_releases") == []


def test_emptied_redis_keeps_workflows_going(ground: Ground, service: Service) -> None:
    ids = chain(service, 6, payload={"durationMs": 200})
    service.redis().flushdb()
    service.worker()
    for n in (0, 2, 4):
        service.until(ids[n], "PROCESSING", "COMPLETED", timeout=30)
        service.redis().flushdb()
    service.until(ids[-1], "COMPLETED", timeout=60)
    check_order(ground)


def test_results_can_be_read_after_an_outage_of_postgres(ground: Ground, service: Service) -> None:
    service.worker()
    first = service.post(payload={"result": 7})
    dependent = service.post("GATHER", {"seconds": 2}, dependsOn=[first], retry={"max": 3, "interval": 1})
    service.until(dependent, "PROCESSING")
    ground.postgres.stop()
    time.sleep(3)  # the handler reads now
    ground.postgres.start()
    assert service.until(dependent, "COMPLETED", timeout=60)["result"] == {first: 7}
    attempt = service.attempts(dependent)[0]
    assert (attempt["outcome"], attempt["error"]["type"]) == ("failed", "StoreUnavailable")
