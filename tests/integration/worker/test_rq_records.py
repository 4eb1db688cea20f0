"""Our worker and stock `rq worker` write the same keys to Redis for a job."""

import base64
import contextlib
import re
import time
import zlib
from typing import Any

import pytest
from redis import Redis
from rq import Worker
from rq.serializers import JSONSerializer

from tests.conftest import empty
from tests.support.service import WORKERS, Service, eventually

JOBS: dict[str, tuple[dict[str, Any], str]] = {
    "completes": ({"payload": {"result": {"a": [1, None]}}}, "finished"),
    "completes with nothing": ({"queue": "low"}, "finished"),
    "takes a while": ({"payload": {"durationMs": 700}}, "finished"),
    "fails, and is tried again": (
        {"payload": {"failAttempts": 9}, "retry": {"max": 2, "interval": [300, 600]}},
        "scheduled",
    ),
    "fails at last": ({"payload": {"failAttempts": 9}, "retry": {"max": 0}}, "failed"),
    "is snoozed": ({"type": "SNOOZE", "payload": {"times": 9, "seconds": 300}}, "scheduled"),
    "is discarded": ({"type": "DISCARD"}, "failed"),
}


@pytest.fixture(scope="module")
def left() -> dict[str, dict[str, Any]]:
    """Return the keys in Redis of each job and of the worker's counters, by the kind of worker."""
    return {kind: _left_by(kind) for kind in WORKERS}


def _left_by(kind: str) -> dict[str, Any]:
    empty()
    service = Service()
    try:
        service.worker(kind)
        with service.redis() as client:
            of_jobs = {name: _run(service, client, *job) for name, job in JOBS.items()}
            return {**of_jobs, "counters": eventually(lambda: _counters(client))}
    finally:
        service.close()


def _run(service: Service, client: Redis, body: dict[str, Any], place: str) -> dict[str, Any]:
    job_id = service.post(**body)
    queue = body.get("queue", "default")
    eventually(lambda: service.rq_places(job_id, queue) == [place])
    key, results, registry = f"rq:job:{job_id}", f"rq:results:{job_id}", f"rq:{place}:jobsvc.{queue}"
    eventually(lambda: not client.exists(f"rq:executions:{job_id}"))
    if place == "finished":
        assert service.rq_job(job_id).return_value() == body.get("payload", {}).get("result")
    worker: bytes = client.hget(key, "worker_name") or b"none"  # type: ignore[assignment]
    unlike = {job_id.encode(): b"<job>", worker: b"<worker>"}
    return {
        "keys": sorted(one.replace(job_id.encode(), b"<job>") for one in client.scan_iter(f"*{job_id}*")),
        **_plain(client.hgetall(key), unlike),
        "results": [_plain(fields, unlike) for _, fields in client.xrange(results)],
        "lives": [_rounded(client.ttl(one)) for one in (key, results)],
        "score": _rounded(float(client.zscore(registry, job_id) or 0) - time.time()),
    }


def _plain(fields: dict[bytes, bytes], unlike: dict[bytes, bytes]) -> dict[str, Any]:
    """The fields of a hash or a stream without what is another one each time: ids, names, times and line numbers."""
    plain: dict[str, Any] = {}
    for name, value in fields.items():
        if name == b"exc_string":
            value = zlib.decompress(base64.b64decode(value)).strip().rpartition(b"\n")[2]
        if name == b"data":
            with contextlib.suppress(zlib.error):  # RQ compresses it when it saves the job, jobsvc doesn't
                value = zlib.decompress(value)
        for one, word in unlike.items():
            value = value.replace(one, word)
        if name.endswith(b"_at") or name == b"last_heartbeat":
            value = (
                re.sub(rb"\d", b"0", value)[:19] if b"T" in value else re.sub(rb"^\d{10}\.?\d*$", b"<moment>", value)
            )
        plain[name.decode()] = "<id>" if name == b"execution_id" else value
    return plain


def _rounded(seconds: float) -> int:
    """To half a minute, since some pass between the end and the reading."""
    return round(seconds / 30)


def _counters(client: Redis) -> dict[str, int] | None:
    [worker] = Worker.all(client, serializer=JSONSerializer)
    worker.refresh()
    counts = {"successful": worker.successful_job_count, "failed": worker.failed_job_count}
    return counts if sum(counts.values()) >= 6 else None


@pytest.mark.parametrize("name", [*JOBS, "counters"])
def test_both_workers_write_the_same_keys(left: dict[str, dict[str, Any]], name: str) -> None:
    """Except for the id of an execution too short to be shown in RQ, and for what RQ makes of a snooze's `Retry`."""
    ours, stocks = left["pool"][name], left["stock"][name]
    if name.startswith("completes"):
        assert stocks["results"][0].pop("execution_id") == "<id>"
    if name == "is snoozed":
        assert stocks.pop("result") == b"Unserializable return value"
    different = {
        what: (ours.get(what), stocks.get(what)) for what in ours | stocks if ours.get(what) != stocks.get(what)
    }
    assert different == {}


def test_running_job_is_shown_in_rq(service: Service) -> None:
    """In the registry, and as the worker's; a quick one isn't, but its end is."""
    service.worker()
    job_id = service.post(payload={"durationMs": 2000})
    eventually(lambda: service.rq_places(job_id) == ["running"])
    assert service.rq_job(job_id).get_status() == "started"
    [worker] = service.client.get("/workers").json()["workers"]
    assert (worker["state"], worker["jobs"]) == ("busy", [job_id])
    shown = service.client.get("/rq/0/data/jobs/jobsvc.default/started/50/asc/1.json").json()
    assert [job["id"] for job in shown["jobs"]] == [job_id]
    service.until(job_id, "COMPLETED")
    eventually(lambda: service.rq_places(job_id) == ["finished"])
    with service.redis() as client:
        assert not [*client.scan_iter("rq:executions:*"), *client.scan_iter("rq:execution:*")]
        assert not client.zcard("rq:wip:jobsvc.default")
    eventually(lambda: [one["jobs"] for one in service.client.get("/workers").json()["workers"]] == [[]])
