"""Real servers for the whole run, and an empty database for each test that asks."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
import redis

from tests.support.launcher import stop_launcher
from tests.support.servers import TEMPLATE, Servers, make_template
from tests.support.service import Service

_servers: Servers | None = None
_template: Path | None = None

FIRST = (
    (
        "tests/rq/",
        "tests/properties/",
        "tests/acceptance/console/test_many_jobs",
        "tests/faults/test_chaos",
        "tests/faults/test_handler_processes",
    ),
    ("tests/acceptance/console/", "tests/faults/"),
    ("tests/acceptance/",),
    ("tests/integration/",),
)
"""Files in the order in which `-n` runs them: long ones first. Those of the console compute, those of faults wait."""

OTHER_WORKERS = {"threads", "shared", "stock"}
"""Kinds of workers besides the default: several jobs at once in a process, and RQ's own."""

WORKER_PARAMETERS = ("kind", "site", "live", "worker")
"""Names of the parameters and fixtures that choose the worker."""

MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
"""Variables by which `make test` would change the `make`s that tests start; those are to behave as a user's."""

NAMED_ONLY = {Path(__file__).parent / "infra", Path(__file__).parent / "image"}
"""Tests against servers that Debian ships, and of the image: run by `make test-infra` and `make test-image`."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a folder of NAMED_ONLY unless an argument names it, or a file of it."""
    if collection_path not in NAMED_ONLY:
        return None
    named = [config.invocation_params.dir / one.split("::")[0] for one in config.args]
    return None if any(one.resolve().is_relative_to(collection_path) for one in named) else True


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Mark what is slow before `-m` chooses. With `-n`, order files so that no process runs a long one at the end."""
    mark_other_workers(items)
    yield

    def place(item: pytest.Item) -> tuple[int, int]:
        file = item.nodeid.partition("::")[0]
        number = next((number for number, starts in enumerate(FIRST) if file.startswith(starts)), len(FIRST))
        return number, crc32(file.encode())

    if hasattr(config, "workerinput"):
        items.sort(key=place)


def mark_other_workers(items: list[pytest.Item]) -> None:
    """Mark a fault's variants with OTHER_WORKERS as slow, if it has variants with the default worker."""
    faults = [item for item in items if item.nodeid.startswith("tests/faults/")]
    has_other = {item: not OTHER_WORKERS.isdisjoint(workers_of(item)) for item in faults}
    by_default = {item.nodeid.partition("[")[0] for item in faults if not has_other[item]}
    for item in faults:
        if has_other[item] and item.nodeid.partition("[")[0] in by_default:
            item.add_marker(pytest.mark.slow)


def workers_of(item: pytest.Item) -> Iterable[str]:
    """The kinds of workers that a parametrized test runs with."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return [str(params[name]) for name in WORKER_PARAMETERS if name in params]


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers before any test module is imported: jobsvc reads its settings as it comes in.

    With `-n`, each process that runs tests has servers, or databases, of its own.
    """
    global _servers, _template
    # SIGTERM ends a run as Ctrl-C does: fixtures stop what they have started. And a shell that
    # runs the tests in the background has them, and what they start, ignore SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith("JOBSVC_") and name != "JOBSVC_DEV_DIR"]:
        del os.environ[name]
    for name in MAKE:
        os.environ.pop(name, None)
    if TEMPLATE not in os.environ:
        _template = Path(tempfile.mkdtemp(prefix="jobsvc-template-"))
        make_template(_template)
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # this process only hands the tests out
    _servers = Servers()
    os.environ |= {"DATABASE_URL": _servers.database_url, "REDIS_URL": _servers.redis_url}


@pytest.fixture(scope="module")
def apart() -> Iterator[dict[str, str]]:
    """The environment of a service that shares no job with any other one's worker."""
    assert _servers is not None
    env = dict(zip(("DATABASE_URL", "REDIS_URL"), _servers.apart(), strict=True))
    yield env
    _servers.give_back(env["REDIS_URL"])


def fresh_database() -> str:
    """The URL of one more database for this module's tests, its tables made."""
    assert _servers is not None
    return _servers.database()


def pytest_unconfigure(config: pytest.Config) -> None:
    stop_launcher()
    if _servers is not None:
        from jobsvc.db.engine import disconnect

        disconnect()
        _servers.stop()
    if _template is not None:
        shutil.rmtree(_template)


@pytest.fixture
def clean() -> None:
    """Empty tables, and an empty Redis."""
    empty()


def empty() -> None:
    """Empty all tables, and Redis."""
    from sqlalchemy import text

    from jobsvc.db.engine import transaction

    tables = "jobs, dependencies, pending_releases, rate_starts, idempotency_keys, schedules, queues, tallies"
    with transaction() as connection:
        connection.execute(text(f"TRUNCATE {tables}, counter_history CASCADE"))
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        client.flushdb()


@pytest.fixture
def service(clean: None) -> Iterator[Service]:
    """An API of this test's own; it adds the workers that it wants."""
    service = Service()
    yield service
    service.close()
