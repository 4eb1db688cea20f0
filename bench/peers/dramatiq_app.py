"""Dramatiq: Redis is the broker."""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import store

dramatiq.set_broker(RedisBroker(url=os.environ["REDIS_URL"]))


@dramatiq.actor
def work(job_id: str, duration_ms: int) -> None:
    store.work(job_id, duration_ms)


if __name__ == "__main__":
    for one in store.insert(int(sys.argv[1])):
        work.send(one, int(sys.argv[2]))
