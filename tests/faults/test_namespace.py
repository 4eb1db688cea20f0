"""Redis is shared with others: what is not ours is never run, failed, trimmed, deleted or shown.

The members of the class, each of which reaches Redis by a queue's name or by what stands in a queue: taking, giving
back, finding what is missing, the retries of RQ's scheduler, the registries of what ended and their trimming, deletion
by retention, the offers, the workers' list, and every page and button of the dashboard. The others are a second
deployment, by its namespace, and an application that uses stock RQ, with pickle, on the most common queue names.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from rq import Queue, SimpleWorker, Worker
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from tests.conftest import fresh_database
from tests.support.service import Service, eventually

OFTEN = {"JOBSVC_SWEEP_SECONDS": "0.5", "JOBSVC_LEASE_SECONDS": "2"}


@pytest.fixture(scope="module")
def two(apart: dict[str, str]) -> Iterator[tuple[Service, Service]]:
    """Two deployments with databases and workers of their own, which share a Redis."""
    one = Service({**apart, **OFTEN})
    other = Service({**apart, **OFTEN, "DATABASE_URL": fresh_database(), "JOBSVC_NAMESPACE": "other-1"})
    try:
        one.worker()
        other.worker()
        yield one, other
    finally:
        one.close()
        other.close()


def snapshot(client: Any, ids: list[str]) -> dict[str, Any]:
    """Return the content of these jobs' keys, without their expiry."""
    return {job_id: client.hgetall(f"rq:job:{job_id}") for job_id in ids}


def test_two_deployments_run_only_their_own_jobs(two: tuple[Service, Service]) -> None:
    made = [(service, [service.post() for _ in range(40)]) for service in two]
    retried = [(service, service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 1})) for service in two]
    delayed = [(service, service.post(delay=1)) for service in two]
    for service, ids in made:
        for job_id in ids:
            job = service.until(job_id, "COMPLETED")
            assert (job["attempts"], job["queue"]) == (1, "default")
    for service, job_id in (*retried, *delayed):
        service.until(job_id, "COMPLETED")
        eventually(lambda service=service, job_id=job_id: service.rq_places(job_id) == ["finished"])


def test_deployment_shows_only_its_own_workers_queues_and_jobs(two: tuple[Service, Service]) -> None:
    for service, other in (two, two[::-1]):
        [worker] = service.client.get("/workers").json()["workers"]
        assert worker["queues"] == ["high", "default", "low"]
        [shown] = service.client.get("/rq/0/data/workers.json").json()["workers"]
        assert shown["name"] == worker["name"]
        assert "other-1." not in str(service.client.get("/queues").json())
        job_id = other.post(delay=3600)
        prefix = other.env.get("JOBSVC_NAMESPACE", "jobsvc")
        eventually(lambda other=other, job_id=job_id: other.rq_places(job_id) == ["scheduled"])
        for path in (
            f"/rq/0/data/job/{job_id}.json",
            f"/rq/0/view/job/{job_id}",
            f"/rq/0/data/jobs/{prefix}.default/scheduled/50/asc/1.json",
            f"/rq/0/view/jobs/{prefix}.default/scheduled/50/asc/1",
        ):
            assert service.client.get(path).status_code == 404, path
            assert other.client.get(path).status_code == 200, path
        for path in (
            f"/rq/job/{job_id}/requeue",
            f"/rq/job/{job_id}/delete",
            f"/rq/requeue/{prefix}.default",
            f"/rq/queue/{prefix}.default/scheduled/empty",
        ):
            assert service.client.post(path).status_code == 404, path
        names = {one["name"] for one in service.client.get("/rq/0/data/queues.json").json()["queues"]}
        assert names
        assert {name.partition(".")[0] for name in names} == {service.env.get("JOBSVC_NAMESPACE", "jobsvc")}


def test_rq_application_on_the_same_redis_is_not_affected(two: tuple[Service, Service]) -> None:
    """Its waiting, scheduled, failed and finished jobs, and its worker, are as they were; its own worker runs them."""
    service, _ = two
    client = service.redis()
    theirs = Queue("default", connection=client)
    waiting = [theirs.enqueue(time.time, result_ttl=3600).id for _ in range(30)]
    finished = ended(client, theirs, 1200, JobStatus.FINISHED, "finished")
    failed = ended(client, theirs, 1050, JobStatus.FAILED, "failed")
    everything = [*waiting, *finished, *failed]
    before = snapshot(client, everything)
    idle = Worker([theirs], connection=client)
    idle.register_birth()
    try:
        for _ in range(20):
            service.until(service.post(), "COMPLETED")
        time.sleep(2)  # some sweeps, which would trim
        assert snapshot(client, everything) == before
        assert theirs.job_ids == waiting
        assert all(client.exists(f"rq:results:{job_id}") for job_id in finished)
        assert idle.name not in str(service.client.get("/workers").json())
        assert idle.name not in str(service.client.get("/rq/0/data/workers.json").json())
        for path in (f"/rq/0/data/job/{waiting[0]}.json", "/rq/0/data/jobs/default/queued/50/asc/1.json"):
            assert service.client.get(path).status_code == 404
        for path in (f"/rq/job/{waiting[0]}/delete", "/rq/requeue/default", "/rq/queue/default/failed/empty"):
            assert service.client.post(path).status_code == 404
        SimpleWorker([theirs], connection=client).work(burst=True)
        assert {RQJob.fetch(job_id, client).get_status() for job_id in waiting} == {JobStatus.FINISHED}
    finally:
        idle.register_death()
        client.delete("rq:queue:default", "rq:finished:default", "rq:failed:default")


def ended(client: Any, queue: Queue, count: int, status: JobStatus, registry: str) -> list[str]:
    """Jobs of that queue's application that have ended, as RQ keeps them."""
    jobs = [queue.create_job(time.time, status=status, result_ttl=3600) for _ in range(count)]
    with client.pipeline() as pipeline:
        for job in jobs:
            job.save(pipeline=pipeline)
            pipeline.xadd(f"rq:results:{job.id}", {"type": 1})
            pipeline.zadd(f"rq:{registry}:{queue.name}", {job.id: time.time() + 3600})
        pipeline.execute()
    return [job.id for job in jobs]


@pytest.mark.parametrize("serializer", [None, JSONSerializer])
def test_finished_jobs_of_others_are_kept_even_in_our_queues(two: tuple[Service, Service], serializer: Any) -> None:
    service, _ = two
    with contextlib.closing(service.redis()) as client:
        queue = Queue("jobsvc.low", connection=client, serializer=serializer)
        theirs = ended(client, queue, 1100, JobStatus.FINISHED, "finished")
        ours = [str(uuid4()) for _ in range(60)]
        with client.pipeline() as pipeline:
            for n, job_id in enumerate(ours):
                job = RQJob.create("jobsvc.execution.run", (job_id,), id=job_id, origin="jobsvc.low",
                                   connection=client, serializer=JSONSerializer, status=JobStatus.FINISHED)  # fmt: skip
                job.save(pipeline=pipeline)
                pipeline.zadd("rq:finished:jobsvc.low", {job_id: n + 1})
            pipeline.execute()
        eventually(lambda: not any(client.exists(f"rq:job:{job_id}") for job_id in ours))
        assert client.exists(*(f"rq:job:{job_id}" for job_id in theirs)) == len(theirs)
        assert client.exists(*(f"rq:results:{job_id}" for job_id in theirs)) == len(theirs)
        assert client.zcard("rq:finished:jobsvc.low") == len(theirs)
        client.delete("rq:finished:jobsvc.low", *(f"rq:job:{job_id}" for job_id in theirs))
