"""The console in a browser, over a real service with a worker."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import Visitor, launched
from tests.support.service import Service

HANDLERS = {"JOBSVC_HANDLERS": "tests.support.handlers.console"}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def console(apart: dict[str, str]) -> Iterator[Service]:
    """A service with a worker."""
    service = Service({**apart, **HANDLERS, "JOBSVC_SWEEP_SECONDS": "0.5"})
    service.worker()
    yield service
    service.close()


@pytest.fixture
def visitor(browser: Browser, console: Service) -> Iterator[Visitor]:
    """Visitors of the service; the test fails if a page does what none may do."""
    visitor = Visitor(browser, console.url)
    yield visitor
    visitor.close()
    visitor.check()
