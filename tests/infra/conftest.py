"""Real infrastructure for each topic. A topic is skipped where its programs can't be had."""

from collections.abc import Iterator

import pytest

from tests.infra.servers import Infrastructure, infrastructure


@pytest.fixture
def servers() -> Iterator[Infrastructure]:
    """Servers of a test's own."""
    with infrastructure() as servers:
        yield servers
