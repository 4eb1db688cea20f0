"""Jobs enqueued in SQL: on the oldest PostgreSQL that is supported, and behind PgBouncer."""

import os
import subprocess
import sys

from tests.infra.deployment import deployment
from tests.infra.servers import Infrastructure
from tests.support.launcher import ROOT
from tests.support.service import Process, eventually
from tests.support.sql_client import committed

ROWS = "tests/acceptance/test_sql_enqueue_rows.py"


def test_rows_are_the_same_on_debians_postgres(servers: Infrastructure) -> None:
    env = {**os.environ, "DATABASE_URL": servers.postgres(), "REDIS_URL": servers.redis()[0]}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ROWS]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:]


def lines_of_listener(process: Process) -> list[str]:
    return [line for line in process.output.splitlines() if "listener: " in line]


def test_session_pooler_delivers_notifications(servers: Infrastructure) -> None:
    database_url, _ = servers.pgbouncer(servers.postgres(), "session")
    env = {"DATABASE_URL": database_url, "REDIS_URL": servers.redis()[0], "JOBSVC_SWEEP_SECONDS": "60"}
    with deployment(env) as service:
        service.until(committed(service), "COMPLETED")
        assert [lines_of_listener(process) for process in service.processes] == [[], []]


def test_transaction_pooler_is_noticed_once_and_sweeps_find_the_jobs(servers: Infrastructure) -> None:
    database_url, server = servers.pgbouncer(servers.postgres(), "transaction")
    with deployment({"DATABASE_URL": database_url, "REDIS_URL": servers.redis()[0]}) as service:
        service.until(committed(service), "COMPLETED")
        eventually(lambda: all(lines_of_listener(process) for process in service.processes))

        def reaches_no_session() -> bool:
            """Return True if no session of the pooler listens any more: it warns of each notification."""
            before = server.log.read_text().count("when not linked")
            service.until(committed(service), "COMPLETED")
            return server.log.read_text().count("when not linked") == before

        eventually(reaches_no_session)
        for process in service.processes:
            [line] = lines_of_listener(process)
            assert "its own notification did not arrive within 1 s" in line
            assert "unavailable" not in process.output
