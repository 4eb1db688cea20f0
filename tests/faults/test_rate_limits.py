"""Rate limits with real workers: kept through kills and lost servers, close to the ideal, in no one else's way."""

import time
from collections.abc import Sequence

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from tests.acceptance.test_queues import pause, resume
from tests.faults.conftest import Ground, kill
from tests.faults.test_explain import codes, fields, reason
from tests.support.service import WORKERS, Service, eventually

OTHER = {"key": "other", "limit": 1, "per": 3600}


def most_within(moments: Sequence[float], per: float) -> int:
    """The largest number of starts in any window of `per` seconds."""
    moments, first, most = sorted(moments), 0, 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= per - 1e-6:
            first += 1
        most = max(most, last - first + 1)
    return most


def post_many(service: Service, count: int, limit: int, per: float, **job: object) -> list[str]:
    body = {"rateLimit": {"key": "k", "limit": limit, "per": per}, **job}
    reply = service.client.post("/jobs/batch", json={"jobs": [body] * count})
    assert reply.status_code == 202, reply.text
    return list(reply.json()["jobIds"])


def starts(service: Service) -> list[float]:
    ordered = "SELECT extract(epoch FROM started_at) FROM rate_starts WHERE key = 'k' ORDER BY 1"
    return [float(at) for (at,) in service.sql(ordered)]


def have_ended(service: Service, ids: Sequence[str]) -> bool:
    [(left,)] = service.sql("SELECT count(*) FROM jobs WHERE id::text = ANY(%s) AND status <> 'COMPLETED'", list(ids))
    return bool(left == 0)


@pytest.mark.parametrize("kind", sorted(WORKERS))
def test_limit_is_reached_and_not_exceeded(service: Service, kind: str) -> None:
    service.worker(kind)
    ids = post_many(service, 12, 4, 1)
    eventually(lambda: have_ended(service, ids), 30)
    moments = starts(service)
    assert len(moments) == 12
    assert most_within(moments, 1) == 4


def test_several_workers_share_the_limit_however_jobs_reach_them(service: Service) -> None:
    service.worker(JOBSVC_WORKERS="3", JOBSVC_CONCURRENCY="4")
    service.worker("stock")
    ids = post_many(service, 60, 10, 0.5)
    rq_queue = Queue("jobsvc.default", connection=service.redis(), serializer=JSONSerializer)
    for job_id in ids:  # even if RQ gets them all
        rq_queue.enqueue("jobsvc.execution.run", args=(job_id,), job_id=job_id)
    eventually(lambda: have_ended(service, ids), 60)
    moments = starts(service)
    assert most_within(moments, 0.5) <= 10
    shown = [service.job(job_id)["startedAt"] for job_id in ids]
    assert len(moments) == 60 == len([one for one in shown if one])


def test_waiting_jobs_hold_up_no_others(service: Service) -> None:
    """Of the same queue, and of the same concurrency key."""
    service.worker()
    waiting = post_many(service, 200, 1, 3600)
    eventually(lambda: len(starts(service)) == 1)
    for job_id in (service.post(), service.post(concurrencyKey="c"), service.post(rateLimit=OTHER)):
        service.until(job_id, "COMPLETED", timeout=10)
    assert sum(service.job(job_id)["status"] == "PENDING" for job_id in waiting[-20:]) == 20


def test_explain_shows_when_the_next_slot_is_free(service: Service) -> None:
    service.worker()
    service.until(service.post(rateLimit=OTHER), "COMPLETED")
    before, waits = service.post(rateLimit=OTHER), service.post(rateLimit=OTHER)
    found = eventually(lambda: (one := reason(service, waits, "rate-limit"))["jobs"] == 1 and one)
    at = found.pop("at")
    assert fields(found) == {"key": "other", "limit": 1, "per": 3600, "used": 1, "dispatched": 0, "jobs": 1}
    assert codes(service, waits) == ["rate-limit"]
    assert at > service.job(before)["createdAt"]


def test_killed_workers_and_relays_lose_no_job_and_break_no_limit(ground: Ground) -> None:
    service = ground.service
    ids = post_many(service, 30, 5, 0.5, payload={"durationMs": 20}, retry={"max": 20, "interval": 0})
    for _ in range(3):
        worker = service.worker(JOBSVC_WORKERS="2")
        seen = len(starts(service))
        eventually(lambda seen=seen: len(starts(service)) > seen)  # type: ignore[misc]
        kill(worker)
    kill(service.api)
    service.worker()
    eventually(lambda: have_ended(service, ids), 60)
    assert most_within(starts(service), 0.5) <= 5
    assert len(starts(service)) >= 30


def test_wiped_redis_loses_no_job_and_breaks_no_limit(ground: Ground) -> None:
    service = ground.service
    service.worker()
    ids = post_many(service, 20, 4, 0.5)
    eventually(lambda: len(starts(service)) >= 4)
    service.redis().flushall()
    eventually(lambda: have_ended(service, ids), 60)
    assert most_within(starts(service), 0.5) <= 4


def test_restarted_postgres_remembers_the_starts(ground: Ground) -> None:
    service = ground.service
    service.worker()
    ids = post_many(service, 9, 3, 2)
    eventually(lambda: len(starts(service)) >= 3)
    kill(ground.postgres)
    ground.postgres.start()
    eventually(lambda: have_ended(service, ids), 60)
    assert most_within(starts(service), 2) == 3


def test_paused_queue_takes_no_slot(service: Service) -> None:
    service.worker()
    pause(service, "low")
    paused = post_many(service, 5, 1, 3600, queue="low")
    service.until(service.post(rateLimit={"key": "k", "limit": 1, "per": 3600}), "COMPLETED")
    resume(service, "low")
    time.sleep(1)
    assert {service.job(job_id)["status"] for job_id in paused} == {"PENDING"}
    assert len(starts(service)) == 1


def test_snoozed_and_failed_starts_count(service: Service) -> None:
    service.worker()
    limit = {"key": "k", "limit": 1, "per": 1}
    snoozed = service.post("SNOOZE", {"times": 1, "seconds": 0}, rateLimit=limit)
    failed = service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 0}, rateLimit=limit)
    eventually(lambda: have_ended(service, [snoozed, failed]), 30)
    assert len(starts(service)) == 4
    assert most_within(starts(service), 1) == 1


def test_job_whose_concurrency_key_is_full_takes_no_slot_of_its_rate_key(service: Service) -> None:
    service.worker(JOBSVC_CONCURRENCY="4")
    limit = {"key": "k", "limit": 1, "per": 3600}
    running = service.post(payload={"durationMs": 60_000}, concurrencyKey="c")
    service.until(running, "PROCESSING")
    waiting = service.post(concurrencyKey="c", rateLimit=limit)
    service.until(service.post(rateLimit=limit), "COMPLETED", timeout=10)
    assert codes(service, waiting) == ["concurrency-key", "rate-limit"]
    service.client.post(f"/jobs/{running}/cancel")
    service.until(running, "CANCELLED")
    eventually(lambda: codes(service, waiting) == ["rate-limit"])
    assert len(starts(service)) == 1
