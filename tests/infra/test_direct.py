"""Debian's Postgres and Redis, reached directly: by TCP, and by Unix sockets."""

import pytest

from tests.infra.life import live
from tests.infra.servers import Infrastructure
from tests.infra.site import site


@pytest.mark.parametrize("kind", ["pool", "stock"])
def test_jobs_live_on_tcp(servers: Infrastructure, kind: str) -> None:
    with site({"DATABASE_URL": servers.postgres(), "REDIS_URL": servers.redis()[0]}, kind) as service:
        live(service)


def test_jobs_live_on_unix_sockets(servers: Infrastructure) -> None:
    servers.postgres("listen_addresses=")
    _, redis_server = servers.redis()
    env = {
        "DATABASE_URL": servers.postgres_socket,
        "REDIS_URL": f"unix://{redis_server.folder}/redis.sock?db=3",
    }
    with site(env) as service:
        live(service)
