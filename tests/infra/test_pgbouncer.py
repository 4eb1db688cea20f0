"""PgBouncer in front of Postgres, in session and in transaction mode: migrations and jobs, both through it."""

import contextlib
import os
import subprocess
import sys

import psycopg2
import pytest

from tests.infra.deployment import deployment
from tests.infra.scenario import live
from tests.infra.servers import Infrastructure
from tests.support.launcher import ROOT
from tests.support.service import free_port


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_jobs_live_behind_pgbouncer(servers: Infrastructure, mode: str) -> None:
    database_url, _ = servers.pgbouncer(servers.postgres(), mode)
    with deployment({"DATABASE_URL": database_url, "REDIS_URL": servers.redis()[0]}) as service:
        live(service)


@pytest.mark.parametrize("command", [("jobsvc.serve",), ("worker",), ("flask", "--app", "wsgi", "db", "upgrade")])
def test_statement_pooling_is_refused(servers: Infrastructure, command: tuple[str, ...]) -> None:
    database_url, _ = servers.pgbouncer(servers.postgres(), "statement")
    env = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": servers.redis()[0], "PORT": str(free_port(None))}
    done = subprocess.run(
        [sys.executable, "-m", *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if line]
    assert "DATABASE_URL: PgBouncer pools by statement" in line


def test_session_settings_do_not_leak_to_other_clients(servers: Infrastructure) -> None:
    database_url, _ = servers.pgbouncer(servers.postgres(), "transaction")
    with deployment({"DATABASE_URL": database_url, "REDIS_URL": servers.redis()[0]}) as service:
        for _ in range(5):
            service.until(service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 0.1}), "COMPLETED")
        settings = "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> 'application_name'"
        with contextlib.ExitStack() as stack:  # each in its transaction, so that several server connections are seen
            seen = []
            for _ in range(8):
                connection = stack.enter_context(contextlib.closing(psycopg2.connect(database_url)))
                cursor = connection.cursor()
                cursor.execute(settings)
                seen += cursor.fetchall()
            assert seen == []
