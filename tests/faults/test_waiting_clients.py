"""Waiting clients while the service stops or Postgres is unavailable."""

import contextlib
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

from tests.faults.conftest import Ground
from tests.support.service import Service, eventually
from tests.support.sse import follow

TUNE = "events.HEARTBEAT_SECONDS = 0.2; serve.WAITERS = 3"


@pytest.fixture
def service(ground: Ground) -> Iterator[Service]:
    service = Service(ground.env, tune=TUNE)
    yield service
    service.close()


def stored(ground: Ground, statement: str = "SELECT id FROM jobs") -> int:
    """Return how many jobs a statement finds or changes."""
    with contextlib.closing(psycopg2.connect(ground.env["DATABASE_URL"])) as connection, connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return int(cursor.rowcount)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_service_answers_waiting_clients(ground: Ground, service: Service, number: signal.Signals) -> None:
    job_id = service.post(delay=600)
    with ThreadPoolExecutor() as pool, follow(service, job_id) as (_, stream):
        assert next(stream)
        waiting = pool.submit(service.client.post, "/jobs", json={"delay": 600}, headers={"Prefer": "wait=60"})
        eventually(lambda: stored(ground) == 2)
        service.api.signal(number)
        # Both are answered in full, which a process that is killed does not do.
        assert [event for event in stream if event] == []
        reply = waiting.result()
        assert (reply.status_code, reply.headers.get("Preference-Applied")) == (202, None)
    assert service.api.wait(20) == 0


def test_stream_survives_an_outage_of_postgres(ground: Ground, service: Service) -> None:
    service.worker()
    job_id = service.post(delay=600)
    with ThreadPoolExecutor() as pool, follow(service, job_id) as (_, stream):
        assert next(stream)["data"]["status"] == "SCHEDULED"
        waiting = pool.submit(service.client.post, "/jobs", json={"delay": 600}, headers={"Prefer": "wait=60"})
        eventually(lambda: stored(ground) == 2)
        ground.postgres.stop()
        eventually(lambda: "Postgres: unavailable" in service.api.output)
        assert [next(stream) for _ in range(5)] == [{}] * 5
        # To a browser's EventSource an error would be final.
        again = service.client.get(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
        assert (again.status_code, again.text.partition(":")[0]) == (200, "retry")
        assert service.client.get(f"/jobs/{job_id}/events").status_code == 503
        ground.postgres.start()
        eventually(lambda: "Postgres: available again" in service.api.output)
        assert stored(ground, "UPDATE jobs SET due_at = now()") == 2
        assert [event["data"]["status"] for event in stream if event][-1] == "COMPLETED"
        assert waiting.result().json()["status"] == "COMPLETED"
    assert service.api.output.count("Postgres: unavailable") == 1
