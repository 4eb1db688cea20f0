"""PgBouncer in front of Postgres, in session and in transaction mode: migrations and jobs, both through it."""

import pytest

from tests.infra.life import live
from tests.infra.servers import Infrastructure
from tests.infra.site import site


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_jobs_live_behind_pgbouncer(servers: Infrastructure, mode: str) -> None:
    database_url, _ = servers.pgbouncer(servers.postgres(), mode)
    with site({"DATABASE_URL": database_url, "REDIS_URL": servers.redis()[0]}) as service:
        live(service)
