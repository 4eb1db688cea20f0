"""Three hosts: an API, and two with workers, whose clocks are ten minutes apart; promises 1 to 7 in one story.

What may happen to a host: its link is cut in the middle of a job and comes back, it dies, its worker is stopped.
What may happen to the servers: Redis dies and comes back empty, Postgres is restarted.
In the end no job is lost, each has one attempt that completed, and no two runs of a job overlap unless the first
had lost its lease.
"""

import itertools
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.hosts import Cluster, network
from tests.infra.servers import Infrastructure, infrastructure
from tests.support.clocks import HostClock, has_compiler
from tests.support.service import eventually

CLOCKS = {0: 0, 1: 300, 2: -300}
"""How many seconds each host's clock is ahead."""


@pytest.fixture
def servers_and_cluster(tmp_path: Path) -> Iterator[tuple[Infrastructure, Cluster]]:
    with network() as made, infrastructure(f"{made.prefix}.1") as servers:
        clocks = [_clock(seconds) for seconds in CLOCKS.values()]
        cluster = Cluster(made, servers, tmp_path, clocks)
        try:
            yield servers, cluster
        finally:
            cluster.service.close()


def _clock(seconds: int) -> dict[str, str]:
    """Environment of a process on a host with a wrong clock."""
    if not seconds or not has_compiler():
        return {}
    _clocks.append(HostClock(seconds))
    return dict(_clocks[-1].env)


_clocks: list[HostClock] = []
"""Kept, since a clock's file lives as long as the object."""


class Load(threading.Thread):
    """Posts short jobs, some five a second, until `stop` is called; remembers what was accepted."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster, self._over = cluster, threading.Event()
        self.accepted: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.2):
            payload = {"path": str(self._cluster.folder / "notes")}
            reply = self._cluster.service.client.post("/jobs", json={"type": "SPAN", "payload": payload})
            assert reply.status_code in (202, 503), reply.text
            if reply.status_code == 202:
                self.accepted.append(reply.json()["jobId"])

    def stop(self) -> None:
        self._over.set()
        self.join()


def test_promises_hold_on_three_hosts(servers_and_cluster: tuple[Infrastructure, Cluster]) -> None:
    servers, cluster = servers_and_cluster
    for number in (1, 2):
        cluster.start_worker(number)
    load = Load(cluster)
    load.start()
    if has_compiler():
        for number in (1, 2):
            eventually(lambda number=number: abs(cluster.clock_of(number) - CLOCKS[number]) < 60, 30)
    long = [
        _a_host_cut_off_is_fenced(cluster),
        _a_dead_hosts_job_starts_elsewhere(cluster),
        _a_stopped_worker_hands_its_job_back(cluster),
    ]
    _servers_come_back(servers, cluster)
    load.stop()
    accepted = [*long, *load.accepted]
    for job_id in accepted:
        cluster.service.until(job_id, "COMPLETED", timeout=60)
    for job_id in accepted:
        outcomes = [one["outcome"] for one in cluster.service.attempts(job_id)]
        assert outcomes.count("completed") == 1, outcomes
    _assert_no_two_leases(cluster)


def _a_host_cut_off_is_fenced(cluster: Cluster) -> str:
    """Promises 3, 4 and 5."""
    go_on = cluster.folder / "cut"
    job_id = cluster.post(until=str(go_on))
    [first] = eventually(lambda: cluster.hosts_of(job_id), 30)
    cluster.hosts[first].cut()
    eventually(lambda: len(cluster.hosts_of(job_id)) == 2, cluster.bound)
    assert cluster.hosts_of(job_id) == [first, 3 - first]
    cluster.hosts[first].join()
    offset = len(cluster.runs())
    eventually(lambda: any(host == str(first) for _, _, _, host, _ in cluster.runs()[offset:]), 60)  # it works again
    go_on.touch()
    job = cluster.service.until(job_id, "COMPLETED", timeout=60)
    assert [one["outcome"] for one in cluster.service.attempts(job_id)] == ["lost", "completed"]
    assert (job["attempts"], job["result"]) == (2, max(fence for _, _, fence, _, _ in cluster.runs(job_id)))
    return job_id


def _a_dead_hosts_job_starts_elsewhere(cluster: Cluster) -> str:
    """Promise 3; the host is there again in the end."""
    go_on = cluster.folder / "dead"
    job_id = cluster.post(until=str(go_on))
    [first] = eventually(lambda: cluster.hosts_of(job_id), 30)
    cluster.kill(first)
    eventually(lambda: len(cluster.hosts_of(job_id)) == 2, cluster.bound)
    go_on.touch()
    cluster.service.until(job_id, "COMPLETED", timeout=60)
    assert cluster.service.job(job_id)["attempts"] == 2
    cluster.hosts[first].join()
    cluster.start_worker(first)
    return job_id


def _a_stopped_worker_hands_its_job_back(cluster: Cluster) -> str:
    """Promise 6."""
    go_on = cluster.folder / "stopped"
    job_id = cluster.post(until=str(go_on))
    [first] = eventually(lambda: cluster.hosts_of(job_id), 30)
    worker = cluster.workers.pop(first)
    worker.popen.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    eventually(lambda: len(cluster.hosts_of(job_id)) == 2, 30)
    go_on.touch()
    cluster.service.until(job_id, "COMPLETED", timeout=60)
    assert cluster.service.job(job_id)["attempts"] == 1
    cluster.start_worker(first)
    return job_id


def _servers_come_back(servers: Infrastructure, cluster: Cluster) -> None:
    """Promises 1, 2 and 7: Redis loses all, and Postgres is restarted while a job ends."""
    postgres, redis_server = servers.daemons
    redis_server.kill()
    without_redis = [cluster.post() for _ in range(3)]
    redis_server.start_again()
    for job_id in without_redis:
        cluster.service.until(job_id, "COMPLETED", timeout=60)

    go_on = cluster.folder / "restarted"
    job_id = cluster.post(until=str(go_on))
    eventually(lambda: cluster.hosts_of(job_id), 30)
    postgres.stop()
    go_on.touch()
    eventually(lambda: [word for word, *_ in cluster.runs(job_id)] == ["start", "end"])
    postgres.start_again()
    eventually(lambda: cluster.service.client.get("/readyz").status_code == 200, 30)
    cluster.service.until(job_id, "COMPLETED", timeout=60)
    assert [one["outcome"] for one in cluster.service.attempts(job_id)] == ["completed"]


def _assert_no_two_leases(cluster: Cluster) -> None:
    """Of two runs of a job that overlap, the earlier one had lost its job a lease before the other started."""
    starts: dict[str, dict[int, float]] = defaultdict(dict)
    ends: dict[str, dict[int, float]] = defaultdict(dict)
    for word, job_id, fence, _, moment in cluster.runs():
        known = (starts if word == "start" else ends)[job_id]
        assert fence not in known, f"{job_id} was run twice with fence {fence}"
        known[fence] = moment
    for job_id, by_fence in starts.items():
        fences = sorted(by_fence)
        outcomes = None
        for earlier, later in itertools.pairwise(fences):
            if ends[job_id].get(earlier, float("inf")) > by_fence[later]:
                outcomes = outcomes or [one["outcome"] for one in cluster.service.attempts(job_id)]
                assert "lost" in outcomes or "handed-back" in outcomes, (job_id, outcomes)
