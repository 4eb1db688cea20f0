"""A deployment of jobsvc on given servers: tables, an API and a worker."""

import contextlib
from collections.abc import Iterator

from tests.support.servers import upgrade
from tests.support.service import Service

SHORT = {"JOBSVC_LEASE_SECONDS": "3", "JOBSVC_SWEEP_SECONDS": "0.5", "JOBSVC_SHUTDOWN_SECONDS": "3"}
"""Times that a test can wait for."""


@contextlib.contextmanager
def deployment(env: dict[str, str], worker: str = "pool", *, migrated: bool = False) -> Iterator[Service]:
    """A running API and worker with these settings; `migrated`: the tables are there already."""
    env = {**SHORT, **env}
    if not migrated:
        upgrade(env)
    service = Service(env)
    try:
        service.worker(worker)
        yield service
    finally:
        service.close()
