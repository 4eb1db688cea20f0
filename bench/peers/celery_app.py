"""Celery: Redis is the broker, results are ignored, tasks are prefetched."""

import os
import sys

from celery import Celery

from bench.peers import store

app = Celery("bench.peers.celery_app", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def work(job_id: str, duration_ms: int) -> None:
    store.work(job_id, duration_ms)


if __name__ == "__main__":
    with app.producer_pool.acquire(block=True) as producer:
        for one in store.insert(int(sys.argv[1])):
            work.apply_async((one, int(sys.argv[2])), producer=producer)
