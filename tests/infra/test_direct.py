"""Debian's Postgres and Redis, reached directly: by TCP, and by Unix sockets."""

import contextlib
import re
from urllib.parse import urlsplit

import pytest
import redis

from tests.infra.deployment import deployment
from tests.infra.scenario import live
from tests.infra.servers import Infrastructure
from tests.support.launcher import ROOT
from tests.support.servers import sql


@pytest.mark.parametrize("kind", ["pool", "stock"])
def test_jobs_live_on_tcp(servers: Infrastructure, kind: str) -> None:
    with deployment({"DATABASE_URL": servers.postgres(), "REDIS_URL": servers.redis()[0]}, kind) as service:
        live(service)


def test_jobs_live_on_unix_sockets(servers: Infrastructure) -> None:
    servers.postgres("listen_addresses=")
    _, redis_server = servers.redis()
    env = {
        "DATABASE_URL": servers.postgres_socket,
        "REDIS_URL": f"unix://{redis_server.folder}/redis.sock?db=3",
    }
    with deployment(env) as service:
        live(service)


@pytest.mark.parametrize("kind", ["pool", "stock"])
def test_jobs_live_with_the_documented_rights_in_redis(servers: Infrastructure, kind: str) -> None:
    [rights] = re.findall(r"these rights are enough: `(.+?)`", (ROOT / "docs" / "operations.md").read_text())
    url, _ = servers.redis()
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        client.execute_command("ACL", "SETUSER", "jobsvc", "on", ">secret", *rights.split())
    env = {"DATABASE_URL": servers.postgres(), "REDIS_URL": url.replace("://", "://jobsvc:secret@")}
    with deployment(env, kind) as service:
        live(service)
        assert "NOPERM" not in service.api.output


def test_url_with_several_hosts_uses_the_one_that_writes(servers: Infrastructure) -> None:
    standby, writable = servers.postgres(), servers.postgres()
    sql(standby, "ALTER DATABASE jobsvc SET default_transaction_read_only = on")
    hosts = "&".join(f"host={urlsplit(url).hostname}:{urlsplit(url).port}" for url in (standby, writable))
    url = f"postgresql://jobsvc@/jobsvc?{hosts}&target_session_attrs=read-write"
    with deployment({"DATABASE_URL": url, "REDIS_URL": servers.redis()[0]}) as service:
        service.until(service.post(), "COMPLETED")
        assert sql(writable, "SELECT status FROM jobs") == [("COMPLETED",)]
