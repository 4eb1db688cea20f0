"""Keys of finished jobs in RQ: their number is bounded, and each of them expires."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from redis.client import PubSubWorkerThread
from rq import SimpleWorker
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.utils import current_timestamp

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.dispatch import rq_cleanup, rq_redis
from jobsvc.dispatch.duties import BATCH, Duties
from jobsvc.states import Status
from tests.integration.factories import dispatches, lapse, new, sql
from tests.support.launcher import ROOT
from tests.support.service import eventually


class Worker(SimpleWorker):
    """A worker in this process, which keeps its signals."""

    def _install_signal_handlers(self) -> None:
        pass


def worker() -> Worker:
    redis = Redis.from_url(os.environ["REDIS_URL"])
    queues = [rq_redis.queue(name) for name in settings().JOBSVC_QUEUES]
    return Worker(queues, connection=redis, serializer=rq_redis.SERIALIZER)


def work() -> None:
    """Run what is queued."""
    worker().work(burst=True, logging_level="CRITICAL")


def dispatch(**changes: Any) -> UUID:
    [one] = dispatches([new(**changes)])
    Duties().dispatch([one])
    return one.job_id


def run_many(count: int) -> None:
    """Run so many jobs of each kind: one that succeeds, one that fails for good."""
    batch = [new(payload={"failAttempts": n % 2}, retry_intervals=[]) for n in range(2 * count)]
    Duties().dispatch(dispatches(batch))
    work()


def keys() -> set[str]:
    """Return all keys in Redis except those of ended workers, which expire after a minute."""
    return {
        key.decode() for key in rq_redis.connection().scan_iter() if not key.startswith((b"rq:worker:", b"rq:jobsvc:"))
    }


def shown(registry: Any) -> list[RQJob | None]:
    """Return the jobs that a dashboard finds in a registry."""
    return RQJob.fetch_many(registry.get_job_ids(), rq_redis.connection(), rq_redis.SERIALIZER)


def finished() -> Any:
    return rq_redis.queue("default").finished_job_registry


def failed() -> Any:
    return rq_redis.queue("default").failed_job_registry


def fetch(job_id: UUID) -> RQJob:
    return RQJob.fetch(str(job_id), rq_redis.connection(), rq_redis.SERIALIZER)


def for_ever() -> set[str]:
    """The keys of jobs that stand in no list or registry of RQ and don't expire."""
    redis = rq_redis.connection()
    owned = {f"rq:job:{job_id}" for name in settings().JOBSVC_QUEUES for job_id in rq_redis.queue(name).get_job_ids()}
    for name in settings().JOBSVC_QUEUES:
        queue = rq_redis.queue(name)
        for registry in (queue.started_job_registry, queue.scheduled_job_registry):
            owned |= {f"rq:job:{job_id}" for job_id in registry.get_job_ids(cleanup=False)}
    of_jobs = [key for key in keys() if key.startswith(("rq:job:", "rq:results:", "rq:execution"))]
    return {key for key in of_jobs if key not in owned and redis.ttl(key) < 0}


def crafted(count: int, status: JobStatus = JobStatus.FINISHED, registry: str = "finished") -> list[str]:
    """Jobs that have ended in RQ, the first one first."""
    ids = [f"job-{n}" for n in range(count)]
    with rq_redis.connection().pipeline() as pipeline:
        for n, job_id in enumerate(ids):
            pipeline.hset(f"rq:job:{job_id}", mapping={"status": status, "origin": "jobsvc.default"})
            pipeline.xadd(f"rq:results:{job_id}", {"type": 1})
            pipeline.zadd(f"rq:{registry}:jobsvc.default", {job_id: current_timestamp() + 500 + n})
        pipeline.execute()
    return ids


def test_memory_in_redis_does_not_grow_with_finished_jobs() -> None:
    sizes = []
    for count in (8, 80):
        run_many(count)
        assert len(keys()) > 2 * 2 * count
        rq_cleanup.trim(BATCH, keep=5)
        sizes.append(len(keys()))
        assert (finished().count, failed().count) == (5, 5)
    assert sizes[0] == sizes[1] < 2 * 2 * 5 + 5


@pytest.mark.parametrize(
    ("registry", "status"),
    [
        ("finished", JobStatus.FINISHED),
        ("failed", JobStatus.FAILED),
        ("failed", JobStatus.STOPPED),
        ("canceled", JobStatus.CANCELED),
    ],
)
def test_newest_finished_jobs_are_kept(registry: str, status: JobStatus) -> None:
    ids = crafted(30, status, registry)
    assert sum(rq_cleanup.trim(BATCH, keep=10)) == 20
    kept = {f"rq:{kind}:{job_id}" for kind in ("job", "results") for job_id in ids[20:]}
    assert keys() == {f"rq:{registry}:jobsvc.default", *kept}


def test_rqs_own_tools_still_list_them() -> None:
    run_many(20)
    rq_cleanup.trim(BATCH, keep=5)
    assert [job.get_status() if job else None for job in shown(finished())] == ["finished"] * 5
    assert [bool(job and job.latest_result()) for job in shown(failed())] == [True] * 5
    info = [Path(sys.executable).parent / "rq", "info", "--url", os.environ["REDIS_URL"], "--raw"]
    reported = subprocess.run(info, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "queue jobsvc.default 0" in reported.stdout


def test_waiting_jobs_are_not_trimmed() -> None:
    queued, scheduled, again = dispatch(), dispatch(delay=60), dispatch()
    ended = crafted(3)
    rq_redis.connection().zadd("rq:failed:jobsvc.default", {str(again): 1})  # it failed, and was queued again
    before = keys() - {"rq:failed:jobsvc.default", "rq:finished:jobsvc.default"}
    assert sum(rq_cleanup.trim(BATCH, keep=0)) == 4
    assert keys() == {key for key in before if not key.endswith(tuple(ended))}
    assert rq_redis.queue("default").get_job_ids() == [str(queued), str(again)]
    assert rq_redis.queue("default").scheduled_job_registry.get_job_ids() == [str(scheduled)]


def test_running_jobs_are_not_trimmed() -> None:
    """A dispatch too many lets RQ call the job finished, while its attempt runs or its retry is planned."""
    running, planned = dispatch(), dispatch(delay=60)
    hand = worker()
    hand.prepare_execution(fetch(running))
    for job_id in (running, planned):
        rq_redis.connection().hset(f"rq:job:{job_id}", "status", JobStatus.FINISHED)
        rq_redis.connection().zadd("rq:finished:jobsvc.default", {str(job_id): 1})
    before = keys()
    assert sum(rq_cleanup.trim(BATCH, keep=0)) == 0
    assert keys() == before


def test_pass_removes_its_limit_at_most() -> None:
    crafted(25)
    assert [sum(rq_cleanup.trim(10, keep=2)) for _ in range(4)] == [10, 10, 3, 0]


def test_concurrent_passes_share_the_work() -> None:
    crafted(3000)
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: sum(sum(rq_cleanup.trim(100, keep=0)) for _ in range(30)), range(4)))
    assert sum(counts) == 3000
    assert keys() == set()


def test_relay_trims_until_nothing_remains() -> None:
    crafted(rq_cleanup.KEPT + BATCH + 5)
    duties = Duties()
    assert duties.trim() == 0
    assert duties.trim() > 0
    assert finished().get_job_count() == rq_cleanup.KEPT


def test_trimmed_jobs_leave_no_key() -> None:
    run_many(3)
    waiting = dispatch()
    ended = [row.id for row in sql("SELECT id FROM jobs WHERE finished_at IS NOT NULL")]
    rq_cleanup.remove_pruned(ended)
    assert [key for key in keys() if key.startswith(("rq:job:", "rq:results:"))] == [f"rq:job:{waiting}"]
    assert (finished().get_job_count(), failed().get_job_count()) == (0, 0)


def test_finished_jobs_expire_for_every_outcome() -> None:
    twice = dispatches([new()])
    for _ in range(2):
        Duties().dispatch(twice)
    run_many(2)
    dispatch(expires_in=0.001)
    eventually(lambda: jobs.expire(10) or not sql("SELECT 1 FROM jobs WHERE status = 'PENDING'"))
    work()
    assert for_ever() == set()


def test_wipe_during_a_job_leaves_no_key_without_expiry() -> None:
    job_id = dispatch(payload={"durationMs": 500})

    def wipe() -> None:
        eventually(lambda: jobs.get(job_id).status == Status.PROCESSING)
        rq_redis.connection().flushdb()

    wiping = threading.Thread(target=wipe)
    wiping.start()
    work()
    wiping.join()
    assert jobs.get(job_id).status == Status.COMPLETED
    assert for_ever() == set()


def test_killed_worker_leaves_no_key_without_expiry() -> None:
    """Its last attempt was running; only the lease in Postgres and RQ's maintenance end it."""
    job_id = dispatch(retry_intervals=[])
    killed = worker()
    job = fetch(job_id)
    rq_redis.queue("default").pop_job_id()
    killed.prepare_execution(job)
    killed.prepare_job_execution(job)
    jobs.start([job_id], killed.name, 15)
    lapse(job_id)
    assert jobs.recover_lapsed(10, 0) == 1
    assert for_ever() == set()
    started = rq_redis.queue("default").started_job_registry
    started.cleanup(current_timestamp() + 600)  # as RQ's maintenance does, when the entry has expired
    assert (started.get_job_ids(cleanup=False), failed().get_job_ids()) == ([], [str(job_id)])
    assert for_ever() == set()


def test_attempt_leaves_no_thread_in_a_simple_worker() -> None:
    """A watchdog thread that outlived the attempt would kill the process at its timeout."""
    before = set(threading.enumerate())
    for payload in ({}, {"failAttempts": 1}):
        dispatch(payload=payload, retry_intervals=[])
    work()
    left = set(threading.enumerate()) - before
    # RQ's own thread for commands may miss its stop, and then ends within the 60 s of its `get_message`.
    assert [thread for thread in left if not isinstance(thread, PubSubWorkerThread)] == []
