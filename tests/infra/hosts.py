"""Hosts of a test's own: network namespaces on a bridge, whose links can be cut."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import randrange

import pytest

from tests.infra.debian import program
from tests.infra.servers import Infrastructure
from tests.support.servers import upgrade
from tests.support.service import POOL, Process, Service

Runs = list[tuple[str, str, int, str, float]]
"""Of each start and end of SPAN: the word, job, fence, host and monotonic second."""


class Host:
    """One network namespace, with an address on the bridge."""

    def __init__(self, network: "Network", number: int) -> None:
        self.name, self.address = f"{network.name}h{number}", f"{network.prefix}.{10 + number}"
        self._link = f"{network.name}v{number}"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._link, "master", network.name)
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.name, "link", "set", "eth0", "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        self.join()

    @property
    def command(self) -> tuple[str, ...]:
        """The prefix of a command that runs on this host."""
        return (program("ip"), "netns", "exec", self.name)

    def cut(self) -> None:
        """Drop packets both ways, without closing connections."""
        _ip("link", "set", self._link, "down")

    def join(self) -> None:
        _ip("link", "set", self._link, "up")

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)


class Network:
    """A bridge, on whose own address the servers listen, and three hosts."""

    def __init__(self) -> None:
        self.name, self.prefix = f"jt{os.getpid() % 100_000}", f"10.231.{randrange(1, 255)}"
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.prefix}.1/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        self.hosts: list[Host] = []
        self.hosts.extend(Host(self, number) for number in range(3))

    def remove(self) -> None:
        for host in self.hosts:
            host.remove()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "del", self.name)


def _ip(*arguments: str) -> None:
    subprocess.run([program("ip"), *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Hosts for the block; skips the topic where no namespaces can be made."""
    program("ip")
    try:
        made = Network()
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"no network namespaces can be made here: {getattr(error, 'stderr', error)}")
    try:
        yield made
    finally:
        made.remove()


class Cluster:
    """The API on one host, and workers on two, whose clocks may be wrong; what runs is noted in a file."""

    LEASE, SWEEP = 3.0, 0.5

    def __init__(self, network: Network, servers: Infrastructure, folder: Path, clocks: list[dict[str, str]]) -> None:
        self.hosts, self._clocks, self._notes = network.hosts, clocks, folder / "notes"
        self.folder = folder
        self._notes.touch()
        api = self.hosts[0]
        env = {
            "DATABASE_URL": servers.postgres(),
            "REDIS_URL": servers.redis()[0],
            "HOST": api.address,
            "JOBSVC_ALLOW_ANONYMOUS": "1",
            "JOBSVC_HANDLERS": "tests.support.handlers.infra",
            "JOBSVC_LEASE_SECONDS": str(self.LEASE),
            "JOBSVC_SWEEP_SECONDS": str(self.SWEEP),
            "JOBSVC_SHUTDOWN_SECONDS": "2",
            "TEST_HOST": "0",
        }
        upgrade(env)
        self.service = Service(env, address=api.address, prefix=api.command)
        self.workers: dict[int, Process] = {}

    def start_worker(self, number: int) -> Process:
        """Start a pool of two workers on a host."""
        env = {"TEST_HOST": str(number), "JOBSVC_WORKERS": "2", **self._clocks[number]}
        self.workers[number] = self.service.run(*self.hosts[number].command, *POOL, env=env)
        return self.workers[number]

    def kill(self, number: int) -> None:
        """Lose a host at once, with all that runs on it."""
        self.hosts[number].cut()
        self.workers.pop(number).kill()

    @property
    def bound(self) -> float:
        """Seconds within which a job of a lost worker starts again, by promise 3, and as much for a busy machine."""
        return 2 * (self.LEASE + self.SWEEP + 5)

    def post(self, **payload: object) -> str:
        return self.service.post("SPAN", {"path": str(self._notes), **payload})

    def runs(self, job_id: str | None = None) -> Runs:
        """Return the runs that SPAN has noted, of one job or of all."""
        lines = [line.split() for line in self._notes.read_text().splitlines()]
        return [
            (word, job, int(fence), host, float(moment))
            for word, job, fence, host, moment, _ in lines
            if job_id in (None, job)
        ]

    def clock_of(self, number: int) -> float:
        """By how many seconds a host's clock is ahead, as its last run saw it; 0 before the first one."""
        lines = [line.split() for line in self._notes.read_text().splitlines()]
        shown = [float(now) - float(moment) for _, _, _, host, moment, now in lines if host == str(number)]
        return shown[-1] - (time.time() - time.monotonic()) if shown else 0.0

    def hosts_of(self, job_id: str) -> list[int]:
        """The hosts on which a job was started, in turn."""
        return [int(host) for word, _, _, host, _ in self.runs(job_id) if word == "start"]
