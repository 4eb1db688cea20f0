"""The previous version beside this one: an upgrade and a rollback of the processes, both under load.

Jobs in every state exist before. Each version's API is posted to for as long as it runs, also while its workers stop.
"""

import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.infra.deployment import SHORT
from tests.infra.every_state import HANDLERS, EveryState
from tests.infra.servers import Infrastructure
from tests.infra.versions import Version, check_out
from tests.support.service import Service, eventually

PREVIOUS = "99c4654"
"""The version before this one."""

RATE = {"key": "shared", "limit": 3, "per": 1}


class Traffic:
    """Posts jobs of several kinds to every API of `services`, five a second each, until `stop`."""

    def __init__(self, notes: Path) -> None:
        self.services: list[Service] = []
        self.accepted: dict[Service, list[str]] = {}
        self.refused: Counter[int] = Counter()
        self.cut: list[str] = []
        self._notes, self._stop = {"path": str(notes)}, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        last: list[str] = []
        while not self._stop.wait(0.2):
            for service in list(self.services):
                number = len(self.accepted.setdefault(service, []))
                kinds: list[dict[str, object]] = [{}, {"rateLimit": RATE}, {"dependsOn": last}, {"delay": 0.5}]
                body = {"type": "NOTE", "payload": self._notes, **kinds[number % len(kinds)]}
                try:
                    reply = httpx.post(f"{service.url}/jobs", json=body, timeout=30)
                except httpx.TransportError as error:
                    if service in self.services:  # else it is being stopped
                        self.cut.append(repr(error))
                    continue
                if reply.status_code == 202:
                    last = [reply.json()["jobId"]]
                    self.accepted[service] += last
                else:
                    self.refused[reply.status_code] += 1

    def until_more(self, *services: Service) -> None:
        """Wait until each of these APIs has accepted twelve jobs more."""
        before = {service: len(self.accepted.get(service, [])) for service in services}
        eventually(lambda: all(len(self.accepted.get(one, [])) >= n + 12 for one, n in before.items()), 60)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def env(servers: Infrastructure) -> dict[str, str]:
    urls = {"DATABASE_URL": servers.postgres(), "REDIS_URL": servers.redis()[0]}
    return {**SHORT, **urls, "JOBSVC_HANDLERS": HANDLERS}


def test_upgrade_and_rollback_under_load_lose_nothing(env: dict[str, str], tmp_path: Path) -> None:
    old, new = Version(env, check_out(PREVIOUS, tmp_path / "previous")), Version(env)
    traffic = Traffic(tmp_path / "traffic")
    try:
        old.migrate()
        first = old.start()
        states = EveryState(first, tmp_path)
        traffic.services.append(first)
        traffic.until_more(first)

        new.migrate()
        second = new.start()
        traffic.services.append(second)
        traffic.until_more(first, second)
        for job_id in states.running:
            assert second.job(job_id)["status"] == "PROCESSING"
        traffic.services.remove(first)
        old.stop()
        traffic.until_more(second)

        third = old.start()  # the rollback: the tables stay
        traffic.services.append(third)
        traffic.until_more(second, third)
        traffic.services.remove(second)
        new.stop()
        traffic.until_more(third)
        traffic.services.remove(third)
        traffic.stop()

        states.finish(third)
        states.check(third)
        accepted = [job_id for ids in traffic.accepted.values() for job_id in ids]
        is_open = "SELECT id, type, status FROM jobs WHERE finished_at IS NULL AND id = ANY(%s::uuid[])"
        eventually(lambda: third.sql(is_open, accepted) == [], 60)
        ended = "SELECT status, attempts, count(*) FROM jobs WHERE id = ANY(%s::uuid[]) GROUP BY 1, 2"
        assert third.sql(ended, accepted) == [("COMPLETED", 1, len(accepted))]
    finally:
        traffic.stop()
        for version in (old, new):
            version.close()
    for output in (*old.outputs, *new.outputs):
        assert "Traceback" not in output, output
    assert traffic.cut == []
    assert set(traffic.refused) <= {503}, traffic.refused
    for path, ids in ((tmp_path / "traffic", accepted), (states.notes, states.once)):
        starts = Counter(line.split()[0] for line in path.read_text().splitlines())
        assert {job_id: starts[job_id] for job_id in ids if starts[job_id] != 1} == {}
    assert starts[states.retrying] == 2
    densest = (
        "SELECT max(n) FROM (SELECT count(*) OVER (ORDER BY started_at RANGE interval '0.999 s' PRECEDING) AS n"
        " FROM jobs WHERE rate_key = 'shared') AS w"
    )
    [(starts_in_a_second,)] = first.sql(densest)
    assert starts_in_a_second <= RATE["limit"]
