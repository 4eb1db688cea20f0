"""An upgrade without a stop: processes of an older version go on while the tables and the first new ones come.

Before it there are jobs in every state: waiting in a paused queue, delayed, snoozed, to be retried, behind a
concurrency key, running, completed, failed, cancelled; and a schedule. All that was accepted ends as it should.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.deployment import SHORT
from tests.infra.servers import Infrastructure
from tests.infra.versions import check_out
from tests.support.servers import upgrade
from tests.support.service import POOL, Service, eventually

OLD = "aa214f0"
"""A version with tables of revision 0002, queue names without a namespace, and ids from the API host's clock."""


@pytest.fixture
def old_checkout(tmp_path: Path) -> Path:
    """The older version, in a folder of its own."""
    return check_out(OLD, tmp_path / "old")


class Both:
    """One deployment, served by the older version and, later, by this one as well."""

    def __init__(self, env: dict[str, str], old_checkout: Path) -> None:
        self.env = env
        self.prefix = ("env", "-C", str(old_checkout), "JOBSVC_HANDLERS=tests.handlers")
        migrate = [*self.prefix, sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
        subprocess.run(migrate, env={**os.environ, **env}, check=True, capture_output=True)
        self.old = Service(env, prefix=self.prefix)
        self.old_worker = self.old.run(*self.prefix, *POOL, env={"JOBSVC_WORKERS": "2"})
        self.new: Service | None = None

    def upgrade(self) -> Service:
        upgrade(self.env)
        self.new = Service(self.env)
        self.new.worker()
        return self.new

    def close(self) -> None:
        for service in (self.old, self.new):
            if service:
                service.close()


@pytest.fixture
def both(servers: Infrastructure, old_checkout: Path) -> Iterator[Both]:
    env = {**SHORT, "DATABASE_URL": servers.postgres(), "REDIS_URL": servers.redis()[0]}
    both = Both(env, old_checkout)
    yield both
    both.close()


def test_no_job_is_lost_or_run_twice_in_an_upgrade(both: Both, tmp_path: Path) -> None:
    old, notes = both.old, tmp_path / "notes"
    note = {"path": str(notes)}
    finish = tmp_path / "finish"
    eventually(lambda: old.client.get("/workers").json()["workers"], 30)

    # In every state, by the old version.
    completed, failed, cancelled = old.post("NOTE", note), old.post("DISCARD"), old.post(delay=3600)
    old.until(completed, "COMPLETED")
    old.until(failed, "FAILED")
    assert old.client.post(f"/jobs/{cancelled}/cancel").status_code == 200
    assert old.client.post("/queues/low/pause").status_code == 200
    running = old.post("UNTIL", {"path": str(finish)})
    first_of_key = old.post("UNTIL", {"path": str(finish)}, concurrencyKey="one")
    behind_key = old.post("NOTE", note, concurrencyKey="one")
    old.until(running, "PROCESSING")
    old.until(first_of_key, "PROCESSING")
    paused = [old.post("NOTE", note, queue="low") for _ in range(20)]
    delayed = [old.post("NOTE", note, delay=delay) for delay in (5, 20)]
    keyed = old.post("NOTE", note, uniqueKey="only", delay=3600)
    assert old.client.put(
        "/schedules/s", json={"cron": "0 0 1 1 *", "job": {"type": "NOTE", "payload": note}}
    ).is_success

    new = both.upgrade()

    # Both accept, some five a second each.
    posted = []
    for _ in range(25):
        posted += [old.post("NOTE", note), new.post("NOTE", note)]
        time.sleep(0.2)
    retrying = old.post("NOTE", {**note, "fails": 1}, retry={"max": 3, "interval": 5})
    snoozed = new.post("SNOOZE", {"times": 1, "seconds": 3})
    assert (
        new.client.post("/jobs", json={"uniqueKey": "only", "type": "NOTE", "payload": note}).json()["jobId"] == keyed
    )
    for job_id in (running, first_of_key):
        assert new.job(job_id)["status"] == "PROCESSING"

    # The old ones are stopped in the middle of two jobs, which the new worker takes over.
    both.old_worker.popen.send_signal(signal.SIGTERM)
    assert both.old_worker.wait(40) == 0, both.old_worker.output
    old.api.popen.send_signal(signal.SIGTERM)
    assert old.api.wait(40) == 0, old.api.output
    finish.touch()
    assert new.client.post("/queues/low/resume").status_code == 200
    made = new.client.post("/schedules/s/run").json()["jobId"]

    noted = [*posted, *paused, *delayed, behind_key, made]
    for job_id in (*noted, running, first_of_key, retrying, snoozed):
        assert new.until(job_id, "COMPLETED", "FAILED", timeout=60)["status"] == "COMPLETED"
    for job_id, status in ((completed, "COMPLETED"), (failed, "FAILED"), (cancelled, "CANCELLED")):
        assert new.job(job_id)["status"] == status
    assert new.client.post(f"/jobs/{keyed}/cancel").json()["status"] == "CANCELLED"
    assert new.client.post(f"/jobs/{failed}/retry").status_code == 200
    new.until(failed, "FAILED")

    starts = Counter(line.split()[0] for line in notes.read_text().splitlines())
    assert {job_id: starts[job_id] for job_id in noted if starts[job_id] != 1} == {}
    assert starts[retrying] == 2
    assert {one["outcome"] for one in new.attempts(running)} == {"handed-back", "completed"}
    for process in (*old.processes, *new.processes):
        assert "Traceback" not in process.output, process.output
