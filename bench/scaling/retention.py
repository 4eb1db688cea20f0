"""Retention: how fast old jobs are deleted, and the size of the table while jobs pass through it."""

import sys
import time

from bench import console_data, usage
from bench.competitors import JOBSVC
from bench.environment import Program, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.scaling.meter import Meter, difference, table
from bench.scaling.servers import ScalingEnvironment

DAY = 86_400
PRUNING = (1, 2)
"""API processes that delete at once."""

OLD = "SELECT count(*) FROM jobs WHERE finished_at < now() - interval '10 days'"

PRODUCERS = 2
STEPS = 10
SIZES = """
SELECT n_live_tup, n_dead_tup, autovacuum_count, pg_table_size('jobs') / 1e6 AS rows_mb,
       pg_indexes_size('jobs') / 1e6 AS indexes_mb, pg_total_relation_size('attempts') / 1e6 AS attempts_mb
FROM pg_stat_user_tables WHERE relname = 'jobs'
"""


def measure_pruning(environment: ScalingEnvironment, number_of_rows: int) -> None:
    """Print how fast one API process and two delete the older half of jobs that ended in twenty days."""
    competitor = Jobsvc(JOBSVC, 0)
    name = f"rows_{number_of_rows}"
    environment.keep(name, lambda: console_data.fill(environment.sql, number_of_rows), competitor.template)
    rows = []
    for number in PRUNING:
        environment.fresh(name)
        [[before]] = environment.sql(OLD)
        env = {"JOBSVC_RETENTION_DAYS": "10", "JOBSVC_HANDLERS": "bench.handlers"}
        with Meter(environment, {}) as meter:
            first = meter.read()
            programs = [environment.serve(sys.executable, "-m", "jobsvc.serve", **env)[0] for _ in range(number)]
            rate = _rate_of_deletes(meter, first["deletes"], before)
            spent = difference(first, meter.read())
            cpu = sum(usage.cpu(one.popen.pid) for one in programs)
        spent_by_row = (1e6 * spent["cpu postgres"] / before, 1e6 * cpu / before, spent["wal_bytes"] / before)
        rows.append([f"{number} API processes", before, rate, *spent_by_row])
        environment.clear()
    table(("", "rows deleted", "rows/s", "µs CPU a row: Postgres", "API", "WAL bytes a row"), rows)


def _rate_of_deletes(meter: Meter, first: float, number: float) -> float:
    """Wait until so many rows more than `first` are deleted; returns how many were deleted a second."""

    def deleted() -> float:
        return meter.read()["deletes"] - first

    some = eventually(deleted, "jobs are deleted", 120, 0.2)
    began = time.perf_counter()
    eventually(lambda: deleted() >= number, "all old jobs are deleted", 600, 0.2)
    return (number - some) / (time.perf_counter() - began)


def measure(environment: ScalingEnvironment, number: int, keep_seconds: float, storage: str) -> None:
    """Pass so many jobs through, while an API process deletes what ended `keep_seconds` ago; print sizes on the way.

    storage: parameters of the table jobs, such as `autovacuum_vacuum_scale_factor = 0.02`; empty: as they are.
    """
    competitor = Jobsvc(JOBSVC, 0)
    competitor.prepare(environment)
    if storage:
        environment.sql(f"ALTER TABLE jobs SET ({storage})")
    vacuums = len(environment.vacuums())
    env = {"JOBSVC_RETENTION_DAYS": str(keep_seconds / DAY), "JOBSVC_HANDLERS": "bench.handlers"}
    api, _ = environment.serve(sys.executable, "-m", "jobsvc.serve", **env)
    rows = []
    with Meter(environment, {"api": [api]}) as meter:
        before = meter.read()
        producers = [
            environment.run(sys.executable, "-m", "bench.scaling.passing", str(number // PRODUCERS))
            for _ in range(PRODUCERS)
        ]
        for step in range(1, STEPS + 1):
            wanted = number * step // STEPS
            eventually(lambda wanted=wanted: _passed(producers) >= wanted, f"{wanted:,} pass", 1800, 0.5)
            rows.append(_row(environment, meter, before, vacuums, wanted))
        for one in producers:
            one.succeed(120)
        spent = difference(before, meter.read())
    _print(rows)
    _end(environment, spent, number, vacuums)


def _passed(producers: list[Program]) -> int:
    total = 0
    for one in producers:
        if one.popen.poll() not in (None, 0):
            one.check()
        lines = one.log.read_text().split()
        total += int(lines[-1]) if lines else 0
    return total


def _row(
    environment: ScalingEnvironment, meter: Meter, before: dict[str, float], vacuums: int, passed: int
) -> list[object]:
    spent = difference(before, meter.read())
    [size] = meter.query(SIZES)
    count, cpu = len(environment.vacuums()) - vacuums, sum(one[0] for one in environment.vacuums()[vacuums:])
    found: list[object] = [
        passed,
        passed / spent["at"],
        int(spent["deletes"]),
        int(size["n_live_tup"]),
        int(size["n_dead_tup"]),
        float(size["rows_mb"]),
        float(size["indexes_mb"]),
        float(size["attempts_mb"]),
        count,
        100 * cpu / spent["cpu postgres"],
    ]
    print(f"  {passed:,} passed: {found}", flush=True)
    return found


def _print(rows: list[list[object]]) -> None:
    table(
        (
            *("jobs passed", "jobs/s so far", "deleted", "live rows", "dead rows", "table MB", "indexes MB"),
            *("attempts MB", "autovacuums", "their share of Postgres' CPU, %"),
        ),
        rows,
    )


def _end(environment: ScalingEnvironment, spent: dict[str, float], number: int, vacuums: int) -> None:
    """Print the cost of a job, the durations of vacuums, and what a rewritten table would take."""
    environment.clear()
    took = [one[1] for one in environment.vacuums()[vacuums:]]
    [[rows]] = environment.sql("SELECT count(*) FROM jobs")
    sizes = "SELECT pg_table_size('jobs') / 1e6, pg_indexes_size('jobs') / 1e6"
    before = environment.sql(sizes)[0]
    environment.sql("VACUUM FULL jobs")
    after = environment.sql(sizes)[0]
    cost = f"{1e6 * spent['cpu postgres'] / number:.0f} µs CPU of Postgres, {spent['wal_bytes'] / number:.0f} bytes WAL"
    updates = f"{spent['updates'] / number:.2f} updates, {100 * spent['hot_updates'] / spent['updates']:.0f} % HOT"
    print(f"  a job: {cost}, {updates}")
    print(f"  autovacuum of jobs: {len(took)} times, {sum(took):.0f} s in all, {max(took, default=0):.0f} s at most")
    print(f"  {rows:,} rows at the end: table {before[0]:.0f} MB, indexes {before[1]:.0f} MB", flush=True)
    print(f"  the same rewritten by VACUUM FULL: {after[0]:.0f} and {after[1]:.0f} MB", flush=True)
