"""TLS with a CA of one's own: to Postgres (verify-full), to Redis (rediss://), to a sentinel and its master."""

from collections.abc import Iterator

import pytest

from tests.infra.certificates import Authority
from tests.infra.debian import program
from tests.infra.deployment import deployment
from tests.infra.scenario import live
from tests.infra.servers import Daemon, Infrastructure, infrastructure
from tests.support.service import Service, eventually, free_port


class Encrypted:
    """Postgres and Redis that speak TLS, and a CA that signed neither."""

    def __init__(self, servers: Infrastructure) -> None:
        folder = servers.folder("tls")
        folder.chmod(0o755)
        self.servers, self.authority = servers, Authority(folder)
        self.other = Authority(folder, "other-ca").certificate
        certificate, key = self.authority.sign("postgres")
        plain = servers.postgres("ssl=on", f"ssl_cert_file={certificate}", f"ssl_key_file={key}")
        self._postgres = plain.replace("127.0.0.1", "localhost")
        self.certificate, self.key = self.authority.sign("redis")
        port = free_port(None)
        self.redis_url, self.redis = servers.redis("--port", "0", "--tls-port", str(port), *self.tls_options, port=port)
        self.redis_url = self.redis_url.replace("redis://127.0.0.1", "rediss://localhost")

    @property
    def tls_options(self) -> list[str]:
        files = ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)]
        return [*files, "--tls-ca-cert-file", str(self.authority.certificate), "--tls-auth-clients", "no"]

    def env(self, postgres_ca: object = None, redis_ca: object = None) -> dict[str, str]:
        ca = self.authority.certificate
        return {
            "DATABASE_URL": f"{self._postgres}?sslmode=verify-full&sslrootcert={postgres_ca or ca}",
            "REDIS_URL": f"{self.redis_url}?ssl_ca_certs={redis_ca or ca}",
        }


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Encrypted]:
    for name in ("openssl", "postgres", "redis-server"):
        program(name)
    with infrastructure() as servers:
        yield Encrypted(servers)


def test_jobs_live_on_tls(encrypted: Encrypted) -> None:
    with deployment(encrypted.env()) as service:
        live(service)
        used = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL"
        assert service.sql(used) == [(True,)]


def test_unknown_ca_of_redis_is_reported_and_jobs_wait(encrypted: Encrypted) -> None:
    service = Service(encrypted.env(redis_ca=encrypted.other))
    try:
        assert service.client.get("/readyz").json()["redis"] == "down"
        assert service.job(service.post())["status"] == "PENDING"
        eventually(lambda: "certificate verify failed" in service.api.output)
    finally:
        service.close()


def test_jobs_live_behind_a_sentinel_with_tls(encrypted: Encrypted) -> None:
    sentinel_port, server = _sentinel(encrypted)
    assert server.popen.poll() is None
    ca = encrypted.authority.certificate
    url = f"rediss+sentinel://127.0.0.1:{sentinel_port}/secure/0?ssl_ca_certs={ca}"
    with deployment({**encrypted.env(), "REDIS_URL": url}, migrated=True) as service:
        service.until(service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 1}), "COMPLETED")


def _sentinel(encrypted: Encrypted) -> tuple[int, Daemon]:
    port, folder = free_port(None), encrypted.servers.folder("sentinel")
    master = encrypted.redis_url.rpartition(":")[2].partition("/")[0]
    options = [" ".join(pair).removeprefix("--") for pair in zip(*[iter(encrypted.tls_options)] * 2, strict=True)]
    lines = ["port 0", f"tls-port {port}", "bind 127.0.0.1", f"dir {folder}", "tls-replication yes", *options]
    lines.append(f"sentinel monitor secure 127.0.0.1 {master} 1")
    config = encrypted.servers.file(folder, "sentinel.conf", "\n".join(lines) + "\n")
    server = encrypted.servers.daemon(folder, program("redis-sentinel"), str(config))
    server.until(lambda: encrypted.servers.connects(port))
    return port, server
