"""One build of the image, and one run of compose.yaml, for all tests. Skipped where the image can't be built."""

import hashlib
import secrets
from collections.abc import Iterator

import pytest

from jobsvc import __version__
from tests.image.build import Image, build, unmount
from tests.image.topology import Topology, topology


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    yield build(tmp_path_factory.mktemp("build"), "--build-arg", f"VERSION={__version__}")
    unmount()


@pytest.fixture(scope="session")
def key() -> str:
    return secrets.token_hex(32)


@pytest.fixture(scope="session")
def variables(key: str) -> dict[str, str]:
    """What an operator writes into `.env`."""
    return {
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "JOBSVC_API_KEYS": f"me:admin:sha256:{hashlib.sha256(key.encode()).hexdigest()}",
        "JOBSVC_SHUTDOWN_SECONDS": "2",
    }


@pytest.fixture(scope="session")
def services(image: Image, variables: dict[str, str]) -> Iterator[Topology]:
    with topology(image, variables) as services:
        for name in ("api", "worker"):
            services.containers[name].until_healthy()
        yield services
