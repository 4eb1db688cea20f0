"""Redis Sentinel: two Redis servers, three sentinels, and real failovers while jobs are posted.

What uses Redis and so has to follow the master: the API's relay and /readyz, the pool's workers with their
children, RQ's scheduler and pub/sub thread, the pool's relay, a stock `rq worker`, RQ's own commands, rq-dashboard.
Ways in which a master is lost: killed, demoted by an operator, frozen and brought back as a replica.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import ResponseError

from tests.infra.debian import program
from tests.infra.deployment import deployment
from tests.infra.scenario import live
from tests.infra.servers import Daemon, Infrastructure, infrastructure
from tests.support.launcher import ROOT
from tests.support.service import Service, eventually, free_port

PASSWORD, SENTINEL_PASSWORD = "p@ss:w/o#rd%", "s&cret?"
USERINFO, SENTINEL_OPTION = "default:p%40ss%3Aw%2Fo%23rd%25", "sentinel_password=s%26cret%3F"

RETURN_SECONDS = 25
"""How long after the loss of a master the service may take to go on, on a busy machine; sentinels wait 1.5 s of it."""


class Replicas:
    """Two Redis servers, three sentinels that watch them, and Postgres."""

    def __init__(self, servers: Infrastructure) -> None:
        self.servers = servers
        self.database_url = servers.postgres()
        ports = [free_port(None) for _ in range(2)]
        self.redis: dict[int, Daemon] = {}
        for port in ports:
            options = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"]
            options += ["--replicaof", f"127.0.0.1 {ports[0]}"] if port != ports[0] else []
            self.redis[port] = servers.redis(*options, port=port)[1]
        eventually(lambda: self.client(ports[1]).info("replication")["master_link_status"] == "up", 30)
        self.sentinels = [self._sentinel(ports[0]) for _ in range(3)]
        for port in self.sentinels:
            eventually(lambda port=port: self._is_complete(port), 30)
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        self.url = f"redis+sentinel://{USERINFO}@{hosts}/jobs-master/3?{SENTINEL_OPTION}"
        self.env = {"DATABASE_URL": self.database_url, "REDIS_URL": self.url}

    def _sentinel(self, master: int) -> int:
        port, folder = free_port(None), self.servers.folder("sentinel")
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
            f"sentinel monitor jobs-master 127.0.0.1 {master} 2",
            f'sentinel auth-pass jobs-master "{PASSWORD}"',
            "sentinel down-after-milliseconds jobs-master 1500",
            "sentinel failover-timeout jobs-master 6000",
        ]
        config = self.servers.file(folder, "sentinel.conf", "\n".join(lines) + "\n")
        self.servers.daemon(folder, program("redis-sentinel"), str(config)).until(self._of(port).ping)
        return port

    def _of(self, port: int) -> "redis.Redis":
        return redis.Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=5)

    def _is_complete(self, port: int) -> bool:
        with self._of(port) as one:
            state = one.sentinel_master("jobs-master")
            return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)

    def client(self, port: int) -> "redis.Redis":
        return redis.Redis(port=port, password=PASSWORD, socket_timeout=5)

    def master(self) -> int:
        """The port of the master as the sentinels agree; 0 while they don't."""
        with self._of(self.sentinels[0]) as first, self._of(self.sentinels[1]) as second:
            ports = {int(one.sentinel_master("jobs-master")["port"]) for one in (first, second)}
        return ports.pop() if len(ports) == 1 else 0

    def settle(self) -> None:
        """Wait until the other server follows the master, so that the next failover can happen."""

        def follows() -> bool:
            master = self.master()
            others = [port for port in self.redis if port != master]
            try:
                state = self.client(others[0]).info("replication")
            except redis.RedisError:
                return False
            return bool(state["role"] == "slave" and state["master_link_status"] == "up")

        eventually(follows, 60)
        eventually(lambda: all(self._is_complete(port) for port in self.sentinels), 30)

    def kill_master(self) -> Callable[[], None]:
        """SIGKILL; what is returned starts it again."""
        server = self.redis[self.master()]
        server.kill()
        return server.start_again

    def demote_master(self) -> Callable[[], None]:
        """Ask for a failover, as before maintenance."""
        with self._of(self.sentinels[0]) as one:

            def is_taken() -> bool:
                try:
                    return bool(one.execute_command("SENTINEL", "FAILOVER", "jobs-master"))
                except ResponseError:  # the last one is not over yet
                    return False

            eventually(is_taken, 30)
        return lambda: None

    def freeze_master(self) -> Callable[[], None]:
        """Stop it without closing its connections; what is returned lets it go on, and it is a replica then."""
        server = self.redis[self.master()]
        server.popen.send_signal(signal.SIGSTOP)
        return lambda: server.popen.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    program("redis-server")
    program("redis-sentinel")
    with infrastructure() as servers:
        yield Replicas(servers)


@pytest.fixture(scope="module")
def service(replicas: Replicas) -> Iterator[Service]:
    with deployment(replicas.env) as service:
        yield service


def test_jobs_live_behind_sentinel(service: Service) -> None:
    live(service)


@pytest.mark.parametrize("loss", ["demote_master", "kill_master", "freeze_master"])
def test_no_job_is_lost_when_the_master_changes(service: Service, replicas: Replicas, loss: str) -> None:
    replicas.settle()
    before = replicas.master()
    offsets = [len(process.output) for process in service.processes]
    delayed = service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 3})
    posted = [service.post() for _ in range(5)]
    bring_back = getattr(replicas, loss)()
    lost_at = time.monotonic()
    while time.monotonic() < lost_at + 6:  # some five a second, through the API, which takes them all
        posted.append(service.post())
        time.sleep(0.2)
    eventually(lambda: replicas.master() not in (0, before), 30)
    for job_id in (delayed, *posted):
        service.until(job_id, "COMPLETED", timeout=max(RETURN_SECONDS + lost_at - time.monotonic(), 10))
    eventually(lambda: service.client.get("/readyz").json()["redis"] == "up")

    reports = 0
    for process, offset in zip(service.processes, offsets, strict=True):
        reported = process.output[offset:]
        outages = re.findall(r".*Redis: unavailable.*", reported)
        workers = 3 if process is not service.api else 1  # the pool's worker, its relay, RQ's scheduler
        assert len(outages) <= workers, reported
        reports += len(outages)
        assert PASSWORD not in reported
        assert SENTINEL_PASSWORD not in reported
    assert reports or loss == "demote_master"  # which may be over before anybody asks
    bring_back()
    # RQ's pub/sub and scheduler have followed too: a running job is stopped by RQ's command, a late one runs.
    running = service.post(payload={"durationMs": 60_000})
    service.until(running, "PROCESSING")
    assert service.client.post(f"/jobs/{running}/cancel").status_code == 202
    service.until(running, "CANCELLED")
    eventually(lambda: service.client.get("/workers").json()["workers"])


def test_stock_worker_runs_behind_sentinel(replicas: Replicas) -> None:
    replicas.settle()
    with deployment(replicas.env, "stock", migrated=True) as service:
        service.until(service.post(), "COMPLETED")
        replicas.demote_master()
        posted = [service.post() for _ in range(3)]
        for job_id in posted:
            service.until(job_id, "COMPLETED", timeout=60)


def test_rqs_own_commands_find_the_master(replicas: Replicas) -> None:
    replicas.settle()
    rq = Path(sys.executable).parent / "rq"
    command = [str(rq), "info", "-c", "jobsvc.rqsettings", "--raw"]
    environment = {**replicas.env, "PATH": "/usr/bin:/bin", "JOBSVC_HANDLERS": "tests.support.handlers.basic"}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert "queue" in shown.stdout


def test_unavailable_sentinel_is_skipped(replicas: Replicas) -> None:
    replicas.settle()
    url = replicas.url.replace("@", f"@127.0.0.1:{free_port(None)},")
    with deployment({**replicas.env, "REDIS_URL": url}, migrated=True) as service:
        service.until(service.post(), "COMPLETED")


def test_wrong_service_name_is_reported_without_secrets(replicas: Replicas) -> None:
    url = replicas.url.replace("jobs-master", "other-master")
    service = Service({**replicas.env, "REDIS_URL": url})
    try:
        assert service.client.get("/readyz").json()["redis"] == "down"
        job_id = service.post()
        assert service.job(job_id)["status"] == "PENDING"
        eventually(lambda: "no sentinel names a master of 'other-master'" in service.api.output)
        assert PASSWORD not in service.api.output
        assert SENTINEL_PASSWORD not in service.api.output
    finally:
        service.close()
