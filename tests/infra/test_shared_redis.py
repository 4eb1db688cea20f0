"""A Redis that two deployments and an application with stock RQ use at once, all of them under load.

The application uses RQ's most common queue names, and pickle, as RQ does by default.
"""

import contextlib
import operator
import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg2
import redis
from rq import Queue

from tests.infra.deployment import deployment
from tests.infra.servers import Infrastructure
from tests.support.launcher import ROOT
from tests.support.service import Service, eventually

THEIRS = 10_000
OURS = 2_000
"""Jobs of each deployment."""

QUEUES = ("default", "high", "low")


@contextlib.contextmanager
def stock_workers(url: str, number: int) -> Iterator[None]:
    """Workers of the application, which run its jobs in their own process."""
    command = [sys.executable, "-m", "rq.cli", "worker", "-q", "-w", "rq.worker.SimpleWorker", "--url", url, *QUEUES]
    workers = [subprocess.Popen(command, cwd=ROOT, start_new_session=True) for _ in range(number)]
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(30)


def post_all(service: Service, ids: list[str]) -> None:
    for _ in range(OURS // 100):
        body = {"jobs": [{"type": "TEST_JOB", "queue": QUEUES[n % 3]} for n in range(100)]}
        ids += service.client.post("/jobs/batch", json=body).raise_for_status().json()["jobIds"]


def test_each_application_runs_only_its_own_jobs(servers: Infrastructure) -> None:
    first = servers.postgres()
    with contextlib.closing(psycopg2.connect(first)) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE other")
    redis_url, _ = servers.redis()
    client = redis.Redis.from_url(redis_url)
    with (
        deployment({"DATABASE_URL": first, "REDIS_URL": redis_url}) as one,
        deployment(
            {
                "DATABASE_URL": first.rpartition("/")[0] + "/other",
                "REDIS_URL": redis_url,
                "JOBSVC_NAMESPACE": "other",
            }
        ) as two,
    ):
        jobs = {name: Queue(name, connection=client) for name in QUEUES}
        prepared = [Queue.prepare_data(operator.add, (n, 1), result_ttl=3600) for n in range(THEIRS)]
        ours: dict[Service, list[str]] = {one: [], two: []}
        posting = [threading.Thread(target=post_all, args=pair) for pair in ours.items()]
        for thread in posting:
            thread.start()
        theirs = []
        with stock_workers(redis_url, 2):
            for begin in range(0, THEIRS, 500):
                part = prepared[begin : begin + 500]
                theirs += jobs[QUEUES[begin // 500 % 3]].enqueue_many(part)
            for thread in posting:
                thread.join()
            for service, ids in ours.items():
                assert len(ids) == OURS
                count = "SELECT count(*) FROM jobs WHERE status = 'COMPLETED'"
                eventually(lambda service=service, count=count: service.sql(count) == [(OURS,)], 120)
                assert service.sql("SELECT DISTINCT attempts FROM jobs") == [(1,)]
            eventually(lambda: sum(queue.finished_job_registry.count for queue in jobs.values()) == THEIRS, 240)
        # Each ran once, under its own application, and everything that RQ keeps of it is there.
        for n, job in enumerate(theirs):
            job.refresh()
            assert (job.get_status(refresh=False).value, job.func_name) == ("finished", "_operator.add"), job.id
            [result] = job.results()
            assert result.return_value == n + 1
        assert all(queue.failed_job_registry.count == 0 for queue in jobs.values())
