"""What is done to the service: each fault takes something away, at once and without a word."""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

import httpx
import psutil
import redis

from jobsvc.devservices import Server
from tests.chaos.deployment import LEASE, Site, attempts, kill, relays, workers
from tests.chaos.load import Accepted, post
from tests.chaos.stalling_client import Stalling
from tests.support.servers import kill_server
from tests.support.service import Process


@dataclass
class Strike:
    """A fault that struck. Times are seconds since the epoch, None while it hasn't come to that."""

    kind: str
    at: float
    lost: set[int] = field(default_factory=set)
    """The processes that it took, whose attempts nobody can expect to end."""
    told_to_stop: set[int] = field(default_factory=set)
    """The processes that were told to end, or do so without their pool: what they can't store in time is lost."""
    heal_after: float = 0.0
    heal: Callable[[], None] | None = None
    healed_at: float | None = None
    accepting_at: float | None = None
    running_at: float | None = None
    accepted: list[Accepted] = field(default_factory=list)
    """Jobs that were accepted by the way."""
    held_up: list[str] = field(default_factory=list)
    """Requests of other clients that were not answered in time."""

    def healed(self) -> None:
        """Give back what it took, where nothing of the service does so by itself."""
        if self.heal:
            self.heal()
        self.healed_at = time.time()


Fault = Callable[[Site, Random, Strike], bool]
"""Strikes, and says so in the strike; False if there was nothing to strike."""

FAULTS: dict[str, Fault] = {}


def fault(kind: str) -> Callable[[Fault], Fault]:
    def keep(strike: Fault) -> Fault:
        FAULTS[kind] = strike
        return strike

    return keep


def strike(kind: str, site: Site, random: Random) -> Strike | None:
    """Let this fault strike; None if it found nothing to strike."""
    one = Strike(kind, time.time())
    return one if FAULTS[kind](site, random, one) else None


def _take_one(candidates: Iterable[psutil.Process], random: Random, strike: Strike) -> bool:
    pids = sorted(process.pid for process in candidates)
    if pids:
        strike.lost.add(random.choice(pids))
        strike.at = time.time()  # finding them took a while
        kill(strike.lost)
    return bool(pids)


@fault("worker killed")
def _worker(site: Site, random: Random, strike: Strike) -> bool:
    return _take_one([one for pool in site.pools for one in workers(pool)], random, strike)


@fault("attempt's process killed")
def _attempt(site: Site, random: Random, strike: Strike) -> bool:
    return _take_one([one for pool in site.pools for one in attempts(pool)], random, strike)


@fault("relay killed")
def _relay(site: Site, random: Random, strike: Strike) -> bool:
    return _take_one([one for pool in site.pools for one in relays(pool)], random, strike)


def fault_of_a_pool(kind: str) -> Callable[[Callable[[Site, Random, Strike, Process], None]], None]:
    """A fault that strikes one of the pools that run; there may be none, until those struck down are replaced."""

    def keep(take: Callable[[Site, Random, Strike, Process], None]) -> None:
        @fault(kind)
        def strike_one(site: Site, random: Random, strike: Strike) -> bool:
            running = [pool for pool in site.pools if pool.popen.poll() is None]
            if running:
                take(site, random, strike, random.choice(running))
            return bool(running)

    return keep


@fault_of_a_pool("pool killed, its workers not")
def _pool(site: Site, random: Random, strike: Strike, pool: Process) -> None:
    strike.told_to_stop = set(pool.tree()) - {pool.popen.pid}
    kill([pool.popen.pid])
    pool.wait()
    strike.heal_after, strike.heal = random.uniform(0, 1), lambda: site.replace(pool)


@fault_of_a_pool("machine lost")
def _machine(site: Site, random: Random, strike: Strike, pool: Process) -> None:
    strike.lost |= set(pool.tree())
    strike.at = time.time()
    while left := pool.tree():
        kill(left)
        pool.popen.poll()
    strike.heal_after, strike.heal = random.uniform(0, 1), lambda: site.replace(pool)


@fault_of_a_pool("machine frozen past its leases")
def _frozen(site: Site, random: Random, strike: Strike, pool: Process) -> None:
    pids = pool.tree()
    strike.lost |= set(pids)
    strike.at = time.time()
    for pid in pids:
        _send(pid, signal.SIGSTOP)
    strike.heal_after = LEASE * random.uniform(1.5, 2.5)
    strike.heal = lambda: [_send(pid, signal.SIGCONT) for pid in pids] and None


@fault_of_a_pool("workers rolled")
def _rolled(site: Site, random: Random, strike: Strike, pool: Process) -> None:
    strike.told_to_stop = set(pool.tree())
    _send(pool.popen.pid, signal.SIGTERM)
    site.replace(pool)


@fault("API killed")
def _api(site: Site, random: Random, strike: Strike) -> bool:
    if site.api.popen.poll() is not None:
        return False
    while left := site.api.tree():
        kill(left)
        site.api.popen.poll()
    strike.heal_after, strike.heal = random.uniform(0, 1), site.start_api
    return True


@fault("Postgres killed")
def _postgres(site: Site, random: Random, strike: Strike) -> bool:
    return _take_server(site.postgres, random, strike)


@fault("Redis killed")
def _redis(site: Site, random: Random, strike: Strike) -> bool:
    return _take_server(site.valkey, random, strike)


def _take_server(server: Server, random: Random, strike: Strike) -> bool:
    if not server.runs():
        return False
    kill_server(server)
    strike.heal_after, strike.heal = random.uniform(0, 5), lambda: server.start() and None
    return True


@fault("Redis emptied")
def _emptied(site: Site, random: Random, strike: Strike) -> bool:
    if not site.valkey.runs():
        return False
    with redis.Redis.from_url(site.env["REDIS_URL"]) as client:
        client.flushall()
    return True


@fault("client stalls half its uploads")
def _stalled(site: Site, random: Random, strike: Strike) -> bool:
    api = site.api
    if api.popen.poll() is not None:
        return False
    stalling = Stalling(site.url, random, lambda: site.api is api and api.popen.poll() is None)

    def finish() -> None:
        stalling.finish()
        strike.accepted, strike.held_up = stalling.accepted, stalling.held_up

    strike.heal_after, strike.heal = random.uniform(1, 5), finish
    return True


def _send(pid: int, number: signal.Signals) -> None:
    try:
        psutil.Process(pid).send_signal(number)
    except psutil.NoSuchProcess:
        pass


PROBE_SECONDS = 0.1
"""How often a probe asks: to this is known how long a fault was felt."""


class Probe:
    """Finds out when the service accepts and runs jobs again after a strike, by a job that goes before all others."""

    def __init__(self, url: str, strike: Strike) -> None:
        self._url = url
        self._strike = strike
        self.job_id: str | None = None
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while self.job_id is None:
                self.job_id = post(client, {"queue": "high"})
                time.sleep(PROBE_SECONDS)
            self._strike.accepting_at = time.time()
            while self._strike.running_at is None:
                time.sleep(PROBE_SECONDS)
                try:
                    reply = client.get(f"/jobs/{self.job_id}")
                except httpx.TransportError:
                    continue
                if reply.status_code == 200 and reply.json()["status"] == "COMPLETED":
                    self._strike.running_at = time.time()
