"""Postgres' disk is full: no job is accepted that is not stored, and /readyz stops load balancers.

For a root that may mount: the disk is a small tmpfs.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.deployment import deployment
from tests.infra.servers import Infrastructure, give
from tests.support.service import eventually

SIZE = "160m"
LARGE = {"result": secrets.token_hex(100_000)}  # compresses badly


@pytest.fixture
def disk(servers: Infrastructure) -> Iterator[Path]:
    """A disk of its own for a server."""
    folder = servers.folder("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a tmpfs can't be mounted")
    yield give(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Leave no room on this disk."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def test_full_disk_is_reported_and_survived(servers: Infrastructure, disk: Path) -> None:
    url = servers.postgres("min_wal_size=32MB", "max_wal_size=48MB", folder=disk)
    with deployment({"DATABASE_URL": url, "REDIS_URL": servers.redis()[0]}) as service:
        accepted = [service.post() for _ in range(3)]
        fill(disk / "filler")
        eventually(lambda: service.client.get("/readyz").status_code == 503)
        replies = [service.client.post("/jobs", json={"type": "TEST_JOB", "payload": LARGE}) for _ in range(20)]
        assert {reply.status_code for reply in replies} <= {202, 503}
        assert 503 in {reply.status_code for reply in replies}
        accepted += [reply.json()["jobId"] for reply in replies if reply.status_code == 202]
        assert service.client.get("/healthz").status_code == 200

        (disk / "filler").unlink()
        eventually(lambda: service.client.get("/readyz").status_code == 200, 30)
        accepted += [service.post(payload=LARGE) for _ in range(3)]
        for job_id in accepted:
            service.until(job_id, "COMPLETED", timeout=30)
        began = [line for line in service.api.output.splitlines() if "Postgres: unavailable" in line]
        assert len(began) <= 3, began
        assert any("No space left on device" in line or "server" in line for line in began), began
