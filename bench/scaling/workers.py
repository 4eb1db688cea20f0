"""Many workers on one Postgres and one Redis: connections, load while idle, memory, and jobs a second."""

import time
from collections.abc import Iterable

from bench import usage
from bench.competitors import JOBSVC
from bench.environment import eventually
from bench.jobsvc_stacks import Jobsvc
from bench.scaling.meter import CONNECTIONS, Meter, difference, table
from bench.scaling.servers import ScalingEnvironment

IDLE_SECONDS = 15
POOL = 20
"""Connections that PgBouncer opens to Postgres."""

HEADINGS = (
    *("worker processes", "s until all are up", "connections: Postgres", "Redis", "PgBouncer's clients"),
    *("idle: % of a core, workers", "Postgres", "Redis", "statements/s", "Redis commands/s"),
    *("memory MB (PSS), all", "jobs/s", "connections: Postgres", "Redis"),
)


def measure(environment: ScalingEnvironment, numbers: Iterable[int], jobs: int) -> None:
    """Print a row for each number of worker processes, and one for the largest behind PgBouncer."""
    chosen = list(numbers)
    rows = [_measure(environment, number, jobs, is_pooled=False) for number in chosen]
    rows += filter(None, [_measure(environment, max(chosen), jobs, is_pooled=True)])
    table(HEADINGS, [row for row in rows if row])


def _measure(environment: ScalingEnvironment, number: int, jobs: int, is_pooled: bool) -> list[object] | None:
    competitor = Jobsvc(JOBSVC, 0, workers=number)
    competitor.prepare(environment)
    competitor.fill(environment, jobs, 0)
    # Paused, so that the workers are idle while all jobs wait.
    environment.sql("INSERT INTO queues (name, paused_at) VALUES ('default', now())")
    with Meter(environment, {}) as meter:
        pooled = environment.pgbouncer(POOL) if is_pooled else None
        if is_pooled and pooled is None:
            print("  PgBouncer is not installed: left out", flush=True)
            return None
        url = environment.env["DATABASE_URL"]
        environment.env["DATABASE_URL"] = pooled[1] if pooled else url
        began = time.perf_counter()
        program = competitor.work(environment)
        environment.env["DATABASE_URL"] = url
        eventually(lambda: program.check() or environment.redis.scard("rq:workers") >= number, "all are up", 300, 0.1)
        up = time.perf_counter() - began
        time.sleep(6)  # three sweeps
        idle, pid = _idle(meter, program.popen.pid), program.popen.pid
        connections = _connections(environment, meter)
        environment.sql("DELETE FROM queues")
        first = eventually(lambda: competitor.completed(environment), "jobs are run", 120, 0.02)
        started = time.perf_counter()
        peak, last, at = connections, first, started + 1e-9
        while (done := competitor.completed(environment)) < jobs:
            program.check()
            now = _connections(environment, meter)
            peak = (max(peak[0], now[0]), max(peak[1], now[1]))
            last, at = done, time.perf_counter()
            time.sleep(0.2)
        memory = usage.memory(pid)
        rate = (last - first) / (at - started)
        what = f"{number} behind PgBouncer, {POOL} connections" if is_pooled else f"{number}"
        row = [what, up, *connections, "yes" if is_pooled else "–", *idle, memory.pss, rate, *peak]
    print(f"  {what}: {row}", flush=True)
    environment.clear()
    return row


def _idle(meter: Meter, pid: int) -> list[float]:
    cpu, before = usage.cpu(pid), meter.read()
    time.sleep(IDLE_SECONDS)
    spent = difference(before, meter.read())
    shares = [usage.cpu(pid) - cpu, spent["cpu postgres"], spent["cpu valkey"]]
    return [
        *(100 * one / spent["at"] for one in shares),
        spent["statements"] / spent["at"],
        spent["redis commands"] / spent["at"],
    ]


def _connections(environment: ScalingEnvironment, meter: Meter) -> tuple[int, int]:
    """Return the service's connections to Postgres, and all to Redis but the one of this program."""
    return int(meter.query(CONNECTIONS)[0]["count"]), int(environment.redis.info("clients")["connected_clients"]) - 1
