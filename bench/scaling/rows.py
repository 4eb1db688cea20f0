"""Requests, sweeps and starts over tables of several sizes."""

import http.client
import json
import random
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta

from bench import console_data, load
from bench.accept import start_times_as_is
from bench.competitor import batch, job
from bench.competitors import JOBSVC
from bench.environment import Program, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.scaling.meter import table
from bench.scaling.servers import ScalingEnvironment, require

READS, WARM_UP = 30, 5
LONGEST_SECONDS = 10
"""For the requests of a kind: slow ones are sent less often."""

POSTS = 300
STARTS = 100
DRAINED = 20_000
PATHS = {
    "`GET /jobs`": "/jobs",
    "`GET /jobs?limit=200`": "/jobs?limit=200",
    "`GET /jobs?status=FAILED`": "/jobs?status=FAILED",
    "`…?status=PENDING`": "/jobs?status=PENDING",
    "`…?status=COMPLETED&type=…`": "/jobs?status=COMPLETED&type=CHARGE_CARD",
    "`…?type=…&queue=…&status=FAILED`": "/jobs?type=CHARGE_CARD&queue=high&status=FAILED",
    "`…?type=` of no job": "/jobs?type=NO_SUCH_TYPE",
    "`…?tag=` of one job in 100": "/jobs?tag=rare",
    "`…?tag=` of one job": "/jobs?tag=order:102",
    "`…?errorType=…`": "/jobs?errorType=CardDeclined",
    "`…?createdBefore=` the middle": "/jobs?createdBefore={middle}",
    "`…?payload=…`, a portion": "/jobs?payload=%7B%22order%22:1%7D",
    "`GET /jobs/:id`": "/jobs/{id}",
    "`GET /jobs/:id/attempts`": "/jobs/{failed}/attempts",
    "`GET /jobs/:id/explain`": "/jobs/{waiting}/explain",
    "`GET /queues`": "/queues",
    "`GET /stats`": "/stats",
    "`GET /metrics`": "/metrics",
    "`GET /readyz`": "/readyz",
    "console, overview": "/ui/",
    "console, jobs with counts": "/ui/jobs?status=FAILED",
}
IDS = {
    "id": "SELECT id::text FROM jobs WHERE random() < 0.02 LIMIT 2000",
    "failed": "SELECT id::text FROM jobs WHERE status = 'FAILED' LIMIT 2000",
    "waiting": "SELECT id::text FROM jobs WHERE status = 'SCHEDULED' ORDER BY id DESC LIMIT 2000",
}
SCANNED = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs'"
DRAIN_RATE = """
SELECT 0.8 * count(*) / extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY finished_at)
       - percentile_disc(0.1) WITHIN GROUP (ORDER BY finished_at))::float
FROM jobs WHERE id > %(after)s::uuid AND finished_at IS NOT NULL
"""


def measure(environment: ScalingEnvironment, numbers: list[int]) -> None:
    """Print the medians in ms for each size; each database is filled first unless it is there."""
    found = [_measure(environment, number) for number in numbers]
    table(("median ms", *(f"{number:,} rows" for number in numbers)), [[w, *(f[w] for f in found)] for w in found[0]])


def _measure(environment: ScalingEnvironment, number: int) -> dict[str, object]:
    competitor = Jobsvc(JOBSVC, 0)
    began = time.perf_counter()
    if environment.keep(f"rows_{number}", lambda: console_data.fill(environment.sql, number), competitor.template):
        print(f"  {number:,} rows: filled in {time.perf_counter() - began:.0f} s", flush=True)
    ids = {name: [row[0] for row in environment.sql(statement)] for name, statement in IDS.items()}
    [[before]] = environment.sql(SCANNED)
    found = _reads(environment, competitor, ids)
    found["a sweep"] = _sweep(environment)
    found["`POST /jobs`, one at a time"] = _post(environment, competitor)
    times = start_times_as_is(environment, competitor, STARTS)
    found["POST to the handler's start"] = 1000 * times[len(times) // 2]
    found["jobs/s, run by 2 worker processes"] = _drain(environment, competitor)
    [[after]] = environment.sql(SCANNED)
    found["rows read by sequential scans"] = int(after - before)
    size = "SELECT pg_table_size('jobs') / 1e6, pg_indexes_size('jobs') / 1e6"
    found["MB of the table"], found["MB of its indexes"] = map(float, environment.sql(size)[0])
    return found


def _reads(environment: ScalingEnvironment, competitor: Jobsvc, ids: dict[str, list[str]]) -> dict[str, object]:
    _, port = competitor.serve(environment)
    middle = f"{datetime.now(UTC) - timedelta(days=10):%Y-%m-%dT%H:%M:%SZ}"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    found: dict[str, object] = {}
    for what, path in PATHS.items():
        times: list[float] = []
        while len(times) < WARM_UP + READS and (len(times) < WARM_UP + 5 or sum(times) < 1000 * LONGEST_SECONDS):
            chosen = {name: random.choice(some) for name, some in ids.items()}  # noqa: S311
            began = time.perf_counter()
            connection.request("GET", path.format(middle=middle, **chosen))
            answer = connection.getresponse()
            answer.read()
            times.append(1000 * (time.perf_counter() - began))
            require(answer.status == 200, f"{path}: {answer.status}")
        found[what] = statistics.median(times[WARM_UP:])
        print(f"  {what}: {found[what]:.1f} ms, at most {max(times):.1f}", flush=True)
    connection.close()
    environment.clear()
    return found


def _sweep(environment: ScalingEnvironment) -> float:
    program = environment.run(sys.executable, "-m", "bench.sweep_timing", "10")
    program.succeed(300)
    return statistics.median(json.loads(program.log.read_text().splitlines()[-1]))


def _post(environment: ScalingEnvironment, competitor: Jobsvc) -> float:
    _, port = competitor.serve(environment)
    times = load.post(port, "/jobs", job().encode(), connections=1, number=POSTS)
    environment.clear()
    return 1000 * times.quantile(0.5)


def _drain(environment: ScalingEnvironment, competitor: Jobsvc) -> float:
    """Return the rate at which new jobs are run beside the rows that are there."""
    [[last]] = environment.sql("SELECT id::text FROM jobs ORDER BY id DESC LIMIT 1")
    _, port = competitor.serve(environment)
    load.post(port, "/jobs/batch", batch(), connections=2, number=DRAINED // 1000)
    eventually(lambda: competitor.queued(environment) >= DRAINED, "all jobs are in Redis", 120)
    environment.clear()
    program: Program = competitor.work(environment)
    ended = "SELECT count(*) FROM jobs WHERE id > %(last)s::uuid AND finished_at IS NOT NULL"
    eventually(lambda: program.check() or environment.sql(ended, last=last)[0][0] >= DRAINED, "all jobs end", 300, 0.5)
    environment.clear()
    return float(environment.sql(DRAIN_RATE, after=last)[0][0])
