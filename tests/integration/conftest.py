"""In-process tests of the domain, on the real servers."""

import pytest


@pytest.fixture(autouse=True)
def _clean(clean: None) -> None:
    """Every test here begins with empty tables and an empty Redis."""
