"""Handlers are loaded and registered, as in any process of the service."""

import pytest

from jobsvc.execution.bootstrap import bootstrap
from jobsvc.jobs.registration import register


@pytest.fixture(autouse=True)
def _bootstrapped() -> None:
    bootstrap()
    register()
