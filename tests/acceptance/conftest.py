"""One running service for the suites that only use its API; once for each kind of worker."""

from collections.abc import Iterator

import pytest

from tests.conftest import empty
from tests.support.service import WORKERS, Service


@pytest.fixture(scope="package")
def api() -> Iterator[Service]:
    """A running API without a worker."""
    service = Service()
    yield service
    service.close()


@pytest.fixture(scope="package", params=sorted(WORKERS))
def stack(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A running API with a worker: ours, then a stock `rq worker`; nothing waits before what a test posts."""
    empty()
    service = Service({"JOBSVC_LEASE_SECONDS": "3"})
    worker = service.worker(request.param)
    yield service
    assert service.alive(worker), worker.output
    service.close()
