"""The life of jobs, through the API: what has to work on any set-up of the servers."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

from tests.support.service import Service, eventually
from tests.support.sse import follow


def live(service: Service) -> None:
    """Check what a user can do with jobs, queues and schedules. A worker has to be running."""
    for part in (
        _readiness,
        _waiting,
        _retries,
        _cancelling,
        _streams,
        _repeated_requests,
        _limits,
        _delays,
        _pauses,
        _schedules,
        _bulk,
        _views,
    ):
        try:
            part(service)
        except AssertionError as error:
            logs = "\n".join(process.output[-3000:] for process in service.processes)
            raise AssertionError(f"{part.__name__.strip('_')}: {error}\n{logs}") from error


def _call(service: Service, method: str, path: str, status: int, body: Any = None, **headers: str) -> Any:
    reply = service.client.request(method, path, json=body, headers=headers)
    assert reply.status_code == status, f"{method} {path}: {reply.status_code} {reply.text[:500]}"
    return reply.json() if reply.content and "json" in reply.headers["content-type"] else reply.text


def _readiness(service: Service) -> None:
    def is_ready() -> bool:
        answer = service.client.get("/readyz").json()
        return bool(answer["postgres"] == "up" and answer["redis"] == "up")

    eventually(is_ready)


def _waiting(service: Service) -> None:
    job = _call(service, "POST", "/jobs", 200, {"payload": {"result": {"a": "漢€"}}}, Prefer="wait=20")
    assert (job["status"], job["result"], job["attempts"]) == ("COMPLETED", {"a": "漢€"}, 1)


def _retries(service: Service) -> None:
    job_id = service.post(payload={"failAttempts": 2}, retry={"max": 2, "interval": 0.2})
    job = service.until(job_id, "COMPLETED", "FAILED")
    assert (job["status"], job["attempts"]) == ("COMPLETED", 3)
    assert [one["outcome"] for one in service.attempts(job_id)] == ["failed", "failed", "completed"]

    job_id = service.post(payload={"failAttempts": 1}, retry={"max": 0, "interval": 1})
    assert service.until(job_id, "FAILED", "COMPLETED")["status"] == "FAILED"
    _call(service, "POST", f"/jobs/{job_id}/retry", 200)
    assert service.until(job_id, "COMPLETED", "FAILED")["status"] == "COMPLETED"
    _call(service, "DELETE", f"/jobs/{job_id}", 204)
    _call(service, "GET", f"/jobs/{job_id}", 404)


def _cancelling(service: Service) -> None:
    waiting = service.post(delay=3600)
    assert _call(service, "POST", f"/jobs/{waiting}/cancel", 200)["status"] == "CANCELLED"
    running = service.post(payload={"durationMs": 60_000})
    service.until(running, "PROCESSING")
    _call(service, "POST", f"/jobs/{running}/cancel", 202)
    service.until(running, "CANCELLED")
    _call(service, "POST", f"/jobs/{running}/cancel", 409)


def _streams(service: Service) -> None:
    job_id = service.post(payload={"durationMs": 300, "steps": 2})
    with follow(service, job_id) as (reply, events):
        assert reply.status_code == 200
        seen = [event["data"]["status"] for event in events if event.get("event") == "status"]
    assert seen[-1] == "COMPLETED"


def _repeated_requests(service: Service) -> None:
    key = uuid4().hex
    first, again = (_call(service, "POST", "/jobs", 202, {}, **{"Idempotency-Key": key}) for _ in range(2))
    assert first == again
    batch = {"jobs": [{"payload": {"result": number}} for number in range(50)]}
    ids = _call(service, "POST", "/jobs/batch", 202, batch)["jobIds"]
    for number, job_id in enumerate(ids):
        assert service.until(job_id, "COMPLETED", "FAILED", timeout=30)["result"] == number
    body = {"uniqueKey": key, "delay": 3600}
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: service.client.post("/jobs", json=body), range(8)))
    assert sorted(reply.status_code for reply in replies) == [200] * 7 + [202]
    assert len({reply.json()["jobId"] for reply in replies}) == 1


def _limits(service: Service) -> None:
    body = {"payload": {"durationMs": 200}, "concurrencyKey": uuid4().hex}
    ids = [service.post(**body) for _ in range(3)]
    jobs = sorted((service.until(job_id, "COMPLETED") for job_id in ids), key=lambda job: job["startedAt"])
    for earlier, later in pairwise(jobs):
        assert earlier["finishedAt"] <= later["startedAt"]


def _delays(service: Service) -> None:
    job = service.until(service.post(delay=1.5), "COMPLETED")
    waited = datetime.fromisoformat(job["startedAt"]) - datetime.fromisoformat(job["createdAt"])
    assert 1.4 < waited.total_seconds() < 15


def _pauses(service: Service) -> None:
    _call(service, "POST", "/queues/default/pause", 200)
    job_id = service.post()
    time.sleep(1)
    assert service.job(job_id)["status"] == "PENDING"
    _call(service, "POST", "/queues/default/resume", 200)
    service.until(job_id, "COMPLETED")


def _schedules(service: Service) -> None:
    url = f"/schedules/{uuid4().hex}"
    _call(service, "PUT", url, 201, {"cron": "0 0 1 1 *", "job": {"payload": {"result": "made"}}})
    job_id = _call(service, "POST", f"{url}/run", 202)["jobId"]
    assert service.until(job_id, "COMPLETED")["result"] == "made"
    assert _call(service, "GET", url, 200)["lastJobId"] in (None, job_id)
    _call(service, "DELETE", url, 204)


def _bulk(service: Service) -> None:
    tag = uuid4().hex
    ids = [service.post(tags=[tag], delay=3600) for _ in range(3)]
    assert _call(service, "POST", f"/jobs/cancel?tag={tag}", 200)["count"] == 3
    assert {service.job(job_id)["status"] for job_id in ids} == {"CANCELLED"}
    listed = _call(service, "GET", f"/jobs?tag={tag}", 200)["jobs"]
    assert [job["id"] for job in listed] == ids[::-1]


def _views(service: Service) -> None:
    workers = _call(service, "GET", "/workers", 200)["workers"]
    assert any("default" in worker["queues"] for worker in workers), workers
    assert "default" in [queue["name"] for queue in _call(service, "GET", "/queues", 200)["queues"]]
    assert "jobsvc_jobs_accepted_total" in _call(service, "GET", "/metrics", 200)
    assert _call(service, "GET", "/openapi.json", 200)["openapi"].startswith("3.1")
    for page in ("/rq/", "/rq/0/data/queues.json", "/rq/0/data/workers.json"):
        _call(service, "GET", page, 200)
