"""The faults: each one kills, stops or empties a part of the deployment without warning."""

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
from tests.chaos.deployment import LEASE, Deployment, attempts, kill, relays, workers
from tests.chaos.load import Accepted, post
from tests.chaos.stalling_client import Stalling
from tests.support.servers import kill_server
from tests.support.service import Process


@dataclass
class Injection:
    """A fault that was injected. Times are seconds since the epoch, None if not reached yet."""

    kind: str
    at: float
    done_at: float | None = None
    """When the last of its processes was dead or frozen; finding and killing them takes a while."""
    lost: set[int] = field(default_factory=set)
    """Ids of killed or frozen processes, whose attempts are lost."""
    stopping: set[int] = field(default_factory=set)
    """Ids of processes that are stopping: results that they can't store in time are lost."""
    heal_after: float = 0.0
    heal: Callable[[], None] | None = None
    healed_at: float | None = None
    accepting_at: float | None = None
    running_at: float | None = None
    accepted: list[Accepted] = field(default_factory=list)
    """Jobs that were accepted by this fault's own requests."""
    delayed: list[str] = field(default_factory=list)
    """Requests of other clients that were not answered in time."""

    def healed(self) -> None:
        """Repair what the service can't repair by itself."""
        if self.heal:
            self.heal()
        self.healed_at = time.time()


Fault = Callable[[Deployment, Random, Injection], bool]
"""Injects the fault and describes it in the Injection; returns False if there was no target."""

FAULTS: dict[str, Fault] = {}


def fault(kind: str) -> Callable[[Fault], Fault]:
    def keep(injection: Fault) -> Fault:
        FAULTS[kind] = injection
        return injection

    return keep


def injection(kind: str, deployment: Deployment, random: Random) -> Injection | None:
    """Inject this fault; return None if it found no target."""
    one = Injection(kind, time.time())
    has_target = FAULTS[kind](deployment, random, one)
    one.done_at = time.time()
    return one if has_target else None


def _kill(pids: Iterable[int]) -> None:
    """Kill these processes, and wait until they are dead: on a busy machine they run on for a while."""
    kill(pids)
    while any(_runs(pid) for pid in pids):
        time.sleep(0.005)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_one(candidates: Iterable[psutil.Process], random: Random, injection: Injection) -> bool:
    pids = sorted(process.pid for process in candidates)
    if pids:
        injection.lost.add(random.choice(pids))
        injection.at = time.time()  # finding them took a while
        _kill(injection.lost)
    return bool(pids)


@fault("worker killed")
def _worker(deployment: Deployment, random: Random, injection: Injection) -> bool:
    return _kill_one([one for pool in deployment.pools for one in workers(pool)], random, injection)


@fault("attempt's process killed")
def _attempt(deployment: Deployment, random: Random, injection: Injection) -> bool:
    return _kill_one([one for pool in deployment.pools for one in attempts(pool)], random, injection)


@fault("relay killed")
def _relay(deployment: Deployment, random: Random, injection: Injection) -> bool:
    return _kill_one([one for pool in deployment.pools for one in relays(pool)], random, injection)


def fault_of_a_pool(kind: str) -> Callable[[Callable[[Deployment, Random, Injection, Process], None]], None]:
    """Register a fault of one running pool. There may be none until killed pools are replaced."""

    def keep(take: Callable[[Deployment, Random, Injection, Process], None]) -> None:
        @fault(kind)
        def inject_one(deployment: Deployment, random: Random, injection: Injection) -> bool:
            running = [pool for pool in deployment.pools if pool.popen.poll() is None]
            if running:
                take(deployment, random, injection, random.choice(running))
            return bool(running)

    return keep


@fault_of_a_pool("pool killed, its workers not")
def _pool(deployment: Deployment, random: Random, injection: Injection, pool: Process) -> None:
    injection.stopping = set(pool.tree()) - {pool.popen.pid}
    kill([pool.popen.pid])
    pool.wait()
    injection.heal_after, injection.heal = random.uniform(0, 1), lambda: deployment.replace(pool)


@fault_of_a_pool("machine lost")
def _machine(deployment: Deployment, random: Random, injection: Injection, pool: Process) -> None:
    injection.lost |= set(pool.tree())
    injection.at = time.time()
    while left := pool.tree():
        injection.lost |= set(left)  # some may have been forked meanwhile
        kill(left)
        pool.popen.poll()
    injection.heal_after, injection.heal = random.uniform(0, 1), lambda: deployment.replace(pool)


@fault_of_a_pool("machine frozen past its leases")
def _frozen(deployment: Deployment, random: Random, injection: Injection, pool: Process) -> None:
    pids = pool.tree()
    injection.lost |= set(pids)
    injection.at = time.time()
    for pid in pids:
        _send(pid, signal.SIGSTOP)
    injection.heal_after = LEASE * random.uniform(1.5, 2.5)
    injection.heal = lambda: [_send(pid, signal.SIGCONT) for pid in pids] and None


@fault_of_a_pool("workers rolled")
def _rolled(deployment: Deployment, random: Random, injection: Injection, pool: Process) -> None:
    injection.stopping = set(pool.tree())
    _send(pool.popen.pid, signal.SIGTERM)
    deployment.replace(pool)


@fault("API killed")
def _api(deployment: Deployment, random: Random, injection: Injection) -> bool:
    if deployment.api.popen.poll() is not None:
        return False
    while left := deployment.api.tree():
        kill(left)
        deployment.api.popen.poll()
    injection.heal_after, injection.heal = random.uniform(0, 1), deployment.start_api
    return True


@fault("Postgres killed")
def _postgres(deployment: Deployment, random: Random, injection: Injection) -> bool:
    return _kill_server(deployment.postgres, random, injection)


@fault("Redis killed")
def _redis(deployment: Deployment, random: Random, injection: Injection) -> bool:
    return _kill_server(deployment.valkey, random, injection)


def _kill_server(server: Server, random: Random, injection: Injection) -> bool:
    if not server.runs():
        return False
    kill_server(server)
    injection.heal_after, injection.heal = random.uniform(0, 5), lambda: server.start() and None
    return True


@fault("Redis emptied")
def _emptied(deployment: Deployment, random: Random, injection: Injection) -> bool:
    if not deployment.valkey.runs():
        return False
    with redis.Redis.from_url(deployment.env["REDIS_URL"]) as client:
        client.flushall()
    return True


@fault("client stalls half its uploads")
def _stalled(deployment: Deployment, random: Random, injection: Injection) -> bool:
    api = deployment.api
    if api.popen.poll() is not None:
        return False
    stalling = Stalling(deployment.url, random, lambda: deployment.api is api and api.popen.poll() is None)

    def finish() -> None:
        stalling.finish()
        injection.accepted, injection.delayed = stalling.accepted, stalling.delayed

    injection.heal_after, injection.heal = random.uniform(1, 5), finish
    return True


def _send(pid: int, number: signal.Signals) -> None:
    try:
        psutil.Process(pid).send_signal(number)
    except psutil.NoSuchProcess:
        pass


PROBE_SECONDS = 0.1
"""How often a probe asks: to this is known how long a fault was felt."""


class Probe:
    """Finds out when the service accepts and runs jobs again after a fault, by a job of the first queue."""

    def __init__(self, url: str, injection: Injection) -> None:
        self._url = url
        self._injection = injection
        self.job_id: str | None = None
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while self.job_id is None:
                self.job_id = post(client, {"queue": "high"})
                time.sleep(PROBE_SECONDS)
            self._injection.accepting_at = time.time()
            while self._injection.running_at is None:
                time.sleep(PROBE_SECONDS)
                try:
                    reply = client.get(f"/jobs/{self.job_id}")
                except httpx.TransportError:
                    continue
                if reply.status_code == 200 and reply.json()["status"] == "COMPLETED":
                    self._injection.running_at = time.time()
