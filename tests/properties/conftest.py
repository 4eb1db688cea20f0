"""Handlers are loaded, as in any process of the service."""

import pytest

from jobsvc.execution.bootstrap import bootstrap


@pytest.fixture(autouse=True)
def _bootstrapped() -> None:
    bootstrap()
