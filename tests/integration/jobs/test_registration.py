"""The registration of job types and queues."""

import threading
from typing import Any

import pytest

from jobsvc import handlers, jobs
from jobsvc.handlers import registry
from jobsvc.jobs import registration
from tests.integration.factories import sql

TYPES = "SELECT name, queue, timeout, retry FROM job_types ORDER BY name"


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    sql("TRUNCATE job_types, served_queues")
    monkeypatch.setattr(registration, "_is_registered", False)
    # Other tests of this process may have added handlers.
    known = {name: registry._handlers[name] for name in ("HTTP_REQUEST", "TEST_JOB", handlers.DELIVERY)}
    monkeypatch.setattr(registry, "_handlers", known)


def test_types_are_registered_with_their_defaults_and_queues() -> None:
    jobs.ensure_registered()
    plain = {"max": 3, "interval": [1, 5, 25]}
    assert sql(TYPES) == [("HTTP_REQUEST", "default", 180, plain), ("TEST_JOB", "default", 180, plain)]
    assert sql("SELECT name FROM served_queues ORDER BY name") == [("default",), ("high",), ("low",)]


def test_types_are_registered_once_in_a_process() -> None:
    jobs.ensure_registered()
    sql("TRUNCATE job_types")
    jobs.ensure_registered()
    assert sql(TYPES) == []


def test_last_start_decides_on_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.register()
    monkeypatch.setattr(registry, "_handlers", dict(registry._handlers))

    @handlers.handler("NEW", queue="low", timeout=5, retry={"max": 2, "backoff": {"initial": 1}})
    def new(payload: dict[str, Any]) -> None:
        pass

    del registry._handlers["TEST_JOB"]
    jobs.register()
    backoff = {"max": 2, "backoff": {"initial": 1, "factor": 2, "max": 3600, "jitter": 0.1}}
    assert sql(TYPES)[1:] == [
        ("NEW", "low", 5, backoff),
        ("TEST_JOB", "default", 180, {"max": 3, "interval": [1, 5, 25]}),
    ]
    sql("UPDATE job_types SET queue = 'high', timeout = 1, updated_at = 'epoch'")
    jobs.register()
    assert sql(TYPES)[1][:3] == ("NEW", "low", 5)
    assert sql(TYPES)[2][:3] == ("TEST_JOB", "high", 1)  # of a process that is not this one
    assert sql("SELECT name FROM job_types WHERE updated_at = 'epoch'") == [("TEST_JOB",)]


def test_processes_may_register_at_once() -> None:
    failures: list[BaseException] = []

    def register() -> None:
        try:
            for _ in range(10):
                jobs.register()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
