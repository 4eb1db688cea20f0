"""Workers that do not know a job's type, from outside: during a deploy, in a mixed fleet, after a type was removed.

All processes load `tests.support.handlers.basic`; those started with TYPES load `tests.support.handlers.types` too.
"""

from collections.abc import Iterator

import pytest

from tests.support.service import Process, Service, eventually

KINDS = {"pool": ("pool", {}), "threads": ("pool", {"JOBSVC_CONCURRENCY": "3"}), "stock": ("stock", {})}
TYPES = "tests.support.handlers.basic,tests.support.handlers.types"
BOUND = 10
"""Seconds within which a job starts once a worker that knows its type has a free slot."""


@pytest.fixture(scope="module")
def shared(apart: dict[str, str]) -> Iterator[Service]:
    service = Service({**apart, "JOBSVC_HANDLERS": TYPES, "JOBSVC_LEASE_SECONDS": "3", "JOBSVC_SWEEP_SECONDS": "1"})
    yield service
    service.close()


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    yield shared
    shared.kill_workers()
    shared.redis().flushdb()
    shared.sql("DELETE FROM jobs")


def worker(service: Service, kind: str, types: str, **env: str) -> Process:
    name, more = KINDS[kind]
    return service.worker(name, **more, **env, JOBSVC_HANDLERS=types)


def old(service: Service, kind: str = "pool", **env: str) -> Process:
    return worker(service, kind, "tests.support.handlers.basic", **env)


def new(service: Service, kind: str = "pool", **env: str) -> Process:
    return worker(service, kind, TYPES, **env)


def refused(service: Service, number: int) -> None:
    """Wait until so many jobs wait for a worker that knows their type."""
    count = "SELECT count(*) FROM jobs WHERE dispatched_at = '9999-12-31 00:00:00+00' AND status <> 'FAILED'"
    eventually(lambda: service.sql(count) == [(number,)])


ROWS = "SELECT id, xmin::text FROM jobs WHERE type = 'NEW_TOO'"
MIXES = [("pool", "pool"), ("threads", "stock"), ("stock", "threads"), ("stock", "stock")]


@pytest.mark.parametrize(("unknowing", "knowing"), MIXES)
def test_job_waits_for_a_worker_that_knows_its_type(service: Service, unknowing: str, knowing: str) -> None:
    old(service, unknowing)
    strange = [service.post("NEW") for _ in range(3)]
    later = service.post("NEW", delay=0.5)
    before = service.job(strange[0])
    after = service.post()
    service.until(after, "COMPLETED")
    refused(service, 4)
    assert (service.job(strange[0]), service.attempts(strange[0])) == (before, [])
    assert service.job(later)["status"] == "SCHEDULED"
    new(service, knowing)
    for job_id in [*strange, later]:
        job = service.until(job_id, "COMPLETED", timeout=BOUND)
        assert (job["result"], [one["outcome"] for one in service.attempts(job_id)]) == (1, ["completed"])


def test_thousands_of_unknown_jobs_delay_no_known_job(service: Service) -> None:
    old(service)
    strange = [id_ for _ in range(2) for id_ in post_many(service, 1000)]
    service.until(service.post(), "COMPLETED", timeout=BOUND)
    refused(service, 2000)
    written = set(service.sql(ROWS))
    for _ in range(3):  # each later than a sweep
        service.until(service.post(delay=1.1), "COMPLETED", timeout=BOUND)
    elapsed = service.sql("SELECT extract(epoch FROM now() - min(finished_at)) FROM jobs WHERE status = 'COMPLETED'")
    # One a second is offered, in case Redis has lost a stock worker.
    assert len(set(service.sql(ROWS)) - written) <= float(elapsed[0][0]) + 1
    assert service.redis().llen("rq:queue:jobsvc.default") <= 1
    new(service, "threads")
    for job_id in strange[::-200]:
        service.until(job_id, "COMPLETED", timeout=60)


def post_many(service: Service, number: int) -> list[str]:
    reply = service.client.post("/jobs/batch", json={"jobs": [{"type": "NEW_TOO"}] * number})
    assert reply.status_code == 202
    return list(reply.json()["jobIds"])


def test_unknown_jobs_expire_retry_and_survive_a_wiped_redis(service: Service) -> None:
    """Their expiry, concurrency keys, retries by hand, an isolated handler, a wiped Redis, a paused queue."""
    old(service)
    keyed = service.post("NEW", concurrencyKey="k")
    behind = service.post(concurrencyKey="k")
    late = service.post("NEW", expiresIn=0.5)
    isolated = service.post("NEW_LOW")
    again = service.post("NEW", delay=60)
    service.client.post(f"/jobs/{again}/cancel")
    assert service.client.post(f"/jobs/{again}/retry").status_code == 200
    service.until(behind, "COMPLETED", timeout=BOUND)
    expired = service.until(late, "FAILED", timeout=BOUND)
    assert (expired["error"]["type"], expired["attempts"], service.attempts(late)) == ("Expired", 0, [])
    refused(service, 3)

    service.redis().flushdb()
    service.client.post("/queues/low/pause")
    new(service)
    for job_id in (keyed, again):
        assert service.until(job_id, "COMPLETED", timeout=BOUND)["attempts"] == 1
    assert service.job(isolated)["status"] == "PENDING"
    service.client.post("/queues/low/resume")
    service.until(isolated, "COMPLETED", timeout=BOUND)
    eventually(lambda: len(service.client.get("/workers").json()["workers"]) == 2)  # the old one is known again
