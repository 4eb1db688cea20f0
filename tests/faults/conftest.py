"""Servers that a fault test may stop, restart and wipe: embedded ones, its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.devservices import Postgres, Valkey
from tests.support import ROOT, Service


class Ground:
    """A service on servers of its own. Its leases are short, so that a test needn't wait long."""

    LEASE, SWEEP = 3.0, 0.5

    def __init__(self, folder: Path, **env: str) -> None:
        self.postgres, self.valkey = Postgres(folder), Valkey(folder)
        self.env = {
            "DATABASE_URL": self.postgres.start()[0],
            "REDIS_URL": self.valkey.start()[0],
            "JOBSVC_LEASE_SECONDS": str(self.LEASE),
            "JOBSVC_SWEEP_SECONDS": str(self.SWEEP),
            **env,
        }
        upgrade = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
        subprocess.run(upgrade, cwd=ROOT, env={**os.environ, **self.env}, check=True, capture_output=True)
        self.service = Service(self.env)

    def stop(self) -> None:
        self.service.close()
        self.valkey.stop()
        self.postgres.stop()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    ground.stop()
