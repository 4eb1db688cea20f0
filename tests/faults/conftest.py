"""Servers that a fault test may stop, restart and wipe: embedded ones, its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobsvc.devservices import Server, Valkey
from tests.support.servers import kill_server, start_copy
from tests.support.service import Process, Service


class Ground:
    """A service on servers of its own. Its leases are short, so that a test needn't wait long."""

    LEASE, SWEEP = 3.0, 0.5

    def __init__(self, folder: Path, **env: str) -> None:
        self.postgres, url = start_copy(folder)
        self.valkey = Valkey(folder)
        self.env = {
            "DATABASE_URL": url,
            "REDIS_URL": self.valkey.start()[0],
            "JOBSVC_LEASE_SECONDS": str(self.LEASE),
            "JOBSVC_SWEEP_SECONDS": str(self.SWEEP),
            **env,
        }
        self.service = Service(self.env)

    @property
    def bound(self) -> float:
        """Seconds within which a lost attempt is to be found: promise 3."""
        return self.LEASE + self.SWEEP + 5

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a statement in Postgres, which works without the API too."""
        return self.service.sql(statement, *parameters)

    def status(self, job_id: str) -> str:
        [(status,)] = self.sql("SELECT status FROM jobs WHERE id = %s", job_id)
        return str(status)

    def cut_connections(self) -> int:
        """Cut all connections of the service to Postgres; returns how many."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'jobsvc'"
            )
        )

    def stop(self) -> None:
        self.service.close()
        self.valkey.stop()
        self.postgres.stop()


def kill(what: Process | Server) -> None:
    """SIGKILL: a process of the service with all that it started, or a server."""
    if isinstance(what, Process):
        what.kill()
    else:
        kill_server(what)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    ground.stop()
