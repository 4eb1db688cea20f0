"""For RQ's own tests: their `Worker` is ours, and the Redis that they expect is that of REDIS_URL.

A pytest plugin that is loaded by its bare name, since in that process `tests` is RQ's package;
`rq worker`, which some of the tests start, loads it with its worker class.
"""

import functools
import os
import time
from typing import Any

import pytest
import rq
import rq.worker
import rq.worker_pool
from redis.connection import Connection, parse_url

from jobsvc.worker.worker import JobsvcWorker as Worker

STOCK_PORT = 6379


def use_redis(url: str) -> None:
    """Have connections to the usual port go to this server; their database stays the one that they name."""
    given = parse_url(url)
    server = {name: given[name] for name in ("host", "port", "username", "password") if name in given}
    connect = Connection.__init__

    @functools.wraps(connect)
    def elsewhere(self: Connection, **kwargs: Any) -> None:
        connect(self, **(kwargs | server if kwargs.get("port", STOCK_PORT) == STOCK_PORT else kwargs))

    Connection.__init__ = elsewhere


def use_worker() -> None:
    """Put our class where the tests, and RQ for them, import `Worker`."""
    for function in (rq.worker_pool.WorkerPool.__init__, rq.worker_pool.run_worker):
        defaults = function.__defaults__ or ()
        function.__defaults__ = tuple(Worker if value is rq.Worker else value for value in defaults)
    rq.Worker = rq.worker.Worker = rq.worker_pool.Worker = Worker
    os.environ["RQ_WORKER_CLASS"] = f"{__name__}.Worker"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the workers of a pool longer to start than half a second, before which a command to one is lost."""
    for item in items:
        if isinstance(item, pytest.Function) and item.module.__name__ == "tests.test_worker_pool":
            item.module.sleep = lambda seconds: time.sleep(3 * seconds)


use_redis(os.environ["REDIS_URL"])
use_worker()
