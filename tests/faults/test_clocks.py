"""Hosts whose clocks are minutes apart: every decision follows Postgres' clock.

The class: a time that one clock made is compared with another's. Its members, and what they follow now:
- ids: lists, cursors, the ranges of ids of `createdAfter` and `createdBefore`, bulk actions, retention's scan,
  which of two jobs is the older: made by Postgres' clock (`jobsvc.jobs.ids`); `created_at` decides at the edges;
- `Retry-After` of a job, "within a year from now", ages on the command line (`--after 5m`), AGE in its tables:
  `current_time`;
- `webhook-timestamp`, and the times of log lines beside `startedAt`: `jobsvc.servers.pgclock`, in child processes too;
- a date in another server's Retry-After: that server's own `Date`;
- due times, leases, expiry, schedules, idempotency keys, sliding windows, waits: in SQL, as before.
Harmless, and left to the host's clock: lines of processes' own logs, spans, HTTP's `Date`, what RQ shows (`rq:*`,
`lastHeartbeat`), and when RQ's scheduler runs: too early starts nothing, too late comes after the relay.
Timeouts and pauses follow the monotonic clock.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.acceptance.test_webhooks import NEW, Receiver
from tests.support.clocks import HostClock, has_compiler
from tests.support.launcher import ROOT
from tests.support.service import Service, serving

pytestmark = pytest.mark.skipif(not has_compiler(), reason="gcc, which makes the shifted clock, is missing")

SHIFT = 420
"""Seconds; more than the 5 minutes that receivers of webhooks forgive."""

ROUND_TRIP = 0.2
"""Seconds by which a process may misjudge the time of Postgres: half of a round trip to it, on a busy machine."""

FAR = 600
"""Seconds; jobs with this delay stay waiting."""


class Hosts:
    """Three APIs of one deployment: with the right clock, one ahead, one behind."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = {"JOBSVC_SWEEP_SECONDS": "0.2", "JOBSVC_WEBHOOK_SECRETS": NEW, **env}
        self.clocks = {"right": HostClock(0), "ahead": HostClock(SHIFT), "behind": HostClock(-SHIFT)}
        with ThreadPoolExecutor() as pool:
            made = pool.map(lambda clock: Service({**self.env, **clock.env}), self.clocks.values())
            self.apis = dict(zip(self.clocks, made, strict=True))
        self.right = self.apis["right"]

    def post_in_turn(self, count: int, **body: Any) -> list[str]:
        services = list(self.apis.values())
        return [services[i % len(services)].post(**body) for i in range(count)]

    def close(self) -> None:
        for service in self.apis.values():
            service.close()
        for clock in self.clocks.values():
            clock.close()


@pytest.fixture(scope="module")
def hosts(apart: dict[str, str]) -> Iterator[Hosts]:
    made = Hosts(apart)
    yield made
    made.close()


@pytest.fixture(scope="module", params=[("pool", "ahead"), ("stock", "behind")], ids=lambda param: "-".join(param))
def worker(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[None]:
    """One worker, whose clock is wrong."""
    kind, name = request.param
    process = hosts.apis[name].worker(kind)
    yield
    process.kill()


@pytest.fixture
def tag() -> str:
    return uuid4().hex


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def listed(service: Service, **filters: Any) -> list[str]:
    """The ids of these jobs, newest first, over pages of seven."""
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = service.client.get("/jobs", params={"limit": 7, **filters, **cursor}).json()
        ids += [job["id"] for job in page["jobs"]]
        if not page["nextCursor"]:
            return ids
        cursor = {"cursor": page["nextCursor"]}


def time_in(job_id: str) -> float:
    return (UUID(job_id).int >> 80) / 1000


def test_list_is_in_the_order_of_acceptance(hosts: Hosts, tag: str) -> None:
    ids = hosts.post_in_turn(30, delay=FAR, tags=[tag])
    for service in hosts.apis.values():
        assert listed(service, tag=tag) == ids[::-1]


def test_ids_have_the_time_of_creation_by_postgres(hosts: Hosts, tag: str) -> None:
    single = hosts.post_in_turn(6, delay=FAR, tags=[tag])
    batches = [
        service.client.post("/jobs/batch", json={"jobs": [{"delay": FAR, "tags": [tag]}] * 50}).json()["jobIds"]
        for service in hosts.apis.values()
    ]
    unique = [hosts.apis["behind"].post(delay=FAR, uniqueKey=tag)]
    ids = [*single, *chain.from_iterable(batches), *unique]
    for earlier, later in pairwise(ids):
        assert time_in(earlier) < time_in(later) + ROUND_TRIP
    assert all(sorted(batch) == batch for batch in batches)
    for id_, epoch in hosts.right.sql("SELECT id::text, extract(epoch FROM created_at)::float8 FROM jobs"):
        assert id_ not in ids or abs(time_in(id_) - epoch) < 2


def test_creation_filters_are_exact_on_every_host(hosts: Hosts, tag: str) -> None:
    ids = hosts.post_in_turn(9, delay=FAR, tags=[tag])
    created = {id_: hosts.right.job(id_)["createdAt"] for id_ in ids}
    edge = created[ids[4]]
    for service in hosts.apis.values():
        assert set(listed(service, tag=tag, createdAfter=edge)) == {id_ for id_ in ids if created[id_] >= edge}
        assert set(listed(service, tag=tag, createdBefore=edge)) == {id_ for id_ in ids if created[id_] < edge}


@pytest.mark.parametrize("by", ["right", "ahead", "behind"])
def test_bulk_cancel_finds_the_jobs_of_all_hosts(hosts: Hosts, tag: str, by: str) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    ids = hosts.post_in_turn(6, delay=FAR, tags=[tag])
    reply = hosts.apis[by].client.post("/jobs/cancel", params={"tag": tag, "createdAfter": since.isoformat()})
    assert reply.json() == {"count": 6}
    assert {hosts.right.job(id_)["status"] for id_ in ids} == {"CANCELLED"}


def test_jobs_with_ids_by_a_wrong_clock_are_found_and_listed_once(hosts: Hosts, tag: str) -> None:
    """As processes of an earlier version made them, or go on making them during an upgrade."""
    ids = hosts.post_in_turn(12, delay=FAR, tags=[tag])
    edge = hosts.right.job(ids[0])["createdAt"]
    skewed = []
    for i, id_ in enumerate(ids):
        bits = UUID(id_).int + ((0, SHIFT, -SHIFT)[i % 3] * 1000 << 80)
        skewed.append(str(UUID(int=bits)))
        hosts.right.sql("UPDATE jobs SET id = %s WHERE id = %s", skewed[-1], id_)
    assert listed(hosts.right, tag=tag) == sorted(skewed, reverse=True)
    assert sorted(listed(hosts.right, tag=tag, createdAfter=edge)) == sorted(skewed)
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    assert sorted(listed(hosts.right, tag=tag, createdBefore=later)) == sorted(skewed)
    reply = hosts.right.client.post("/jobs/cancel", params={"tag": tag, "createdAfter": edge})
    assert reply.json() == {"count": 12}


def test_clock_that_is_set_while_the_api_runs_changes_nothing(hosts: Hosts, tag: str) -> None:
    ids = []
    for seconds in (0, SHIFT, -SHIFT, 0):
        hosts.clocks["right"].set(seconds)
        ids += hosts.post_in_turn(3, delay=FAR, tags=[tag])
    assert listed(hosts.right, tag=tag) == ids[::-1]


def test_host_with_a_wrong_clock_is_reported_once(hosts: Hosts, tag: str) -> None:
    hosts.post_in_turn(3, delay=FAR, tags=[tag])
    for name, how in (("ahead", "ahead of"), ("behind", "behind")):
        assert hosts.apis[name].api.output.count(f"this host's time is {SHIFT} s {how} Postgres'") == 1


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("by", ["right", "ahead", "behind"])
def test_delays_run_at_and_expiry_follow_postgres(hosts: Hosts, by: str) -> None:
    service = hosts.apis[by]
    delayed = service.post(delay=1)
    run_at = datetime.now(UTC) + timedelta(seconds=1)
    planned = service.post(runAt=run_at.isoformat(), expiresIn=60)
    expiring = service.post(delay=FAR, expiresIn=0.5)
    retried = service.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 1})
    first = service.until(delayed, "COMPLETED")
    assert 1 <= (moment(first["startedAt"]) - moment(first["createdAt"])).total_seconds() < 5
    second = service.until(planned, "COMPLETED")
    assert 0 <= (moment(second["startedAt"]) - run_at).total_seconds() < 5
    assert service.until(expiring, "FAILED")["error"]["type"] == "Expired"
    service.until(retried, "COMPLETED")
    began = [moment(one["startedAt"]) for one in service.attempts(retried)]
    assert 1 <= abs((began[1] - began[0]).total_seconds()) < 5


@pytest.mark.usefixtures("worker")
def test_webhooks_are_stamped_by_postgres(hosts: Hosts) -> None:
    with serving(receiver := Receiver()):
        job_id = hosts.right.post(webhookUrl=receiver.url)
        [seen] = receiver.reported()
    received = seen.verified()  # refuses what is 5 minutes off
    assert (received["data"]["id"], received["timestamp"]) == (job_id, hosts.right.job(job_id)["finishedAt"])
    assert time_in(seen.headers["webhook-id"]) == pytest.approx(moment(received["timestamp"]).timestamp(), abs=2)


@pytest.mark.usefixtures("worker")
def test_log_lines_stand_between_start_and_end(hosts: Hosts) -> None:
    job_id = hosts.right.post("TALK", {"lines": 1})
    hosts.right.until(job_id, "COMPLETED")
    [attempt] = hosts.right.attempts(job_id)
    slack = timedelta(seconds=0.1)
    assert attempt["logs"]
    for line in attempt["logs"]:
        assert moment(attempt["startedAt"]) - slack <= moment(line["time"]) <= moment(attempt["finishedAt"]) + slack


@pytest.mark.parametrize("by", ["right", "ahead", "behind"])
def test_retry_after_says_when_the_job_is_due(hosts: Hosts, by: str) -> None:
    reply = hosts.apis[by].client.get(f"/jobs/{hosts.right.post(delay=40)}")
    assert 30 <= int(reply.headers["Retry-After"]) <= 40


@pytest.mark.parametrize("by", ["right", "ahead", "behind"])
def test_a_year_from_now_is_the_limit_by_postgres(hosts: Hosts, by: str) -> None:
    year = datetime.now(UTC) + timedelta(days=366)
    for minutes, status in ((-2, 202), (2, 422)):
        body = {"runAt": (year + timedelta(minutes=minutes)).isoformat()}
        assert hosts.apis[by].client.post("/jobs", json=body).status_code == status


def test_idempotency_key_is_remembered_for_a_day_by_postgres(hosts: Hosts, tag: str) -> None:
    def post(by: str) -> tuple[str, bool]:
        reply = hosts.apis[by].client.post("/jobs", json={"delay": FAR}, headers={"Idempotency-Key": tag})
        return reply.json()["jobId"], "Idempotency-Replayed" in reply.headers

    first, _ = post("right")
    age = "UPDATE idempotency_keys SET created_at = now() - make_interval(secs => %s) WHERE key = %s"
    hosts.right.sql(age, 86400 - 60, tag)
    assert post("ahead") == post("behind") == (first, True)
    hosts.right.sql(age, 86400 + 60, tag)
    again, is_replayed = post("behind")
    assert (again != first, is_replayed) == (True, False)


@pytest.mark.parametrize("by", ["ahead", "behind"])
def test_retention_counts_by_postgres(hosts: Hosts, by: str, tag: str) -> None:
    kept, deleted = hosts.post_in_turn(2, delay=FAR, tags=[tag])
    for id_, age in ((kept, 1), (deleted, 70)):
        new_id = UUID(int=UUID(id_).int - (100_000 << 80))
        hosts.right.sql(
            "UPDATE jobs SET id = %s, status = 'CANCELLED', created_at = now() - interval '100 s',"
            " finished_at = now() - make_interval(secs => %s) WHERE id = %s",
            *(str(new_id), age, id_),
        )
    run(hosts, by, "from jobsvc import jobs; jobs.prune(60, 1000)")
    assert [time_in(id_) for id_ in listed(hosts.right, tag=tag)] == [pytest.approx(time_in(kept) - 100, abs=0.01)]


@pytest.mark.parametrize("by", ["ahead", "behind"])
def test_ages_on_the_command_line_count_by_postgres(hosts: Hosts, by: str, tag: str) -> None:
    ids = hosts.post_in_turn(3, delay=FAR, tags=[tag])
    commands = [["--after", "100s", "--json"], ["--before", "100s", "--json"], []]
    code = f"""
import json
from wsgi import app
done = []
for more in {commands}:
    with app.app_context():
        ended = app.test_cli_runner().invoke(args=["jobs", "list", "--tag", {tag!r}, *more])
    assert ended.exit_code == 0, ended.output
    done.append(ended.stdout)
print(json.dumps(done))
"""
    after, before, table = json.loads(run(hosts, by, code))
    assert [json.loads(line)["id"] for line in after.splitlines()] == ids[::-1]
    assert before == ""
    head, *rows = table.splitlines()
    for row in rows:
        number, unit = row[head.index("AGE") :].split()[:2]
        assert unit == "s"
        assert float(number) < 60


@pytest.mark.parametrize("by", ["ahead", "behind"])
def test_next_run_of_a_schedule_is_within_the_minute(hosts: Hosts, by: str, tag: str) -> None:
    asked_at = datetime.now(UTC)
    reply = hosts.apis[by].client.put(f"/schedules/{tag}", json={"cron": "* * * * *", "job": {}, "enabled": True})
    assert timedelta(0) < moment(reply.json()["nextRunAt"]) - asked_at < timedelta(seconds=65)
    hosts.right.client.delete(f"/schedules/{tag}")


def run(hosts: Hosts, by: str, code: str) -> str:
    """The output of Python code on this host."""
    env = {**os.environ, "JOBSVC_HANDLERS": "tests.support.handlers.basic", **hosts.env, **hosts.clocks[by].env}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
