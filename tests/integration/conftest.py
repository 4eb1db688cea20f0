"""In-process tests of the domain, on the real servers."""

import pytest

from jobsvc.execution.bootstrap import bootstrap


@pytest.fixture(autouse=True)
def _clean(clean: None) -> None:
    """Every test here begins with the handlers loaded, empty tables and an empty Redis."""
    bootstrap()
