"""The service under growth: many waiting jobs, many rows, many finished jobs."""

import http.client
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

from bench import usage
from bench.competitors import JOBSVC
from bench.environment import BenchError, Environment, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.results import Results

ROUNDS = 3
READS = 50
PAGES = {
    "the newest 50": "/jobs",
    "the newest 200": "/jobs?limit=200",
    "50 that failed": "/jobs?status=FAILED",
    "50 of a type and queue": "/jobs?type=TEST_JOB&queue=default",
    "50 with a tag": "/jobs?tag=rare",
    "50 from the middle": "/jobs?createdBefore={middle}",
}
# Ended jobs of the last twenty days, one in fifty failed, one in a hundred cancelled, one in a hundred tagged; the
# newest thousand wait for tomorrow.
SEED = """
INSERT INTO jobs (id, type, queue, payload, status, created_at, tags, timeout, retry_intervals, max_attempts, attempts,
                  due_at, dispatched_at, fence, worker, started_at, finished_at, version, result, error)
SELECT uuidv7(at - now()), 'TEST_JOB', 'default', '{"durationMs": 0}',
       CASE WHEN waits THEN 'SCHEDULED' WHEN n %% 50 = 0 THEN 'FAILED' WHEN n %% 100 = 1 THEN 'CANCELLED'
            ELSE 'COMPLETED' END,
       at, CASE WHEN n %% 100 = 2 THEN '{rare}'::text[] END, 180, '{1,5,25}', 4, CASE WHEN waits THEN 0 ELSE 1 END,
       CASE WHEN waits THEN now() + interval '1 day' ELSE at END, CASE WHEN NOT waits THEN at END, 1, 'worker',
       CASE WHEN NOT waits THEN at END, CASE WHEN NOT waits THEN at END, 3, NULL,
       CASE WHEN n %% 50 = 0 AND NOT waits THEN '{"type": "RuntimeError", "message": "asked", "attempt": 1}'::jsonb END
FROM (SELECT n, n > %(rows)s - 1000 AS waits, now() - interval '20 days' * (1 - n / %(rows)s::float) AS at
      FROM generate_series(1::bigint, %(rows)s) AS n)
"""


@dataclass(frozen=True)
class Sizes:
    """The sizes that are compared: (small, large)."""

    waiting: tuple[int, int]
    rows: tuple[int, int]
    run: int


WHOLE = Sizes((10_000, 1_000_000), (10_000, 5_000_000), 200_000)
QUICK = Sizes((2_000, 10_000), (10_000, 100_000), 500)


def measure(environment: Environment, results: Results, seconds: float, sizes: Sizes) -> None:
    """All of it, of the service alone."""
    competitor = Jobsvc(JOBSVC, 0)
    (few, many), (short, long) = sizes.waiting, sizes.rows
    results.notes.append(
        f"many and few: {many:,} and {few:,} jobs waiting, {long:,} and {short:,} rows, {sizes.run:,} jobs run"
    )
    waiting(environment, results, competitor, seconds, sizes.waiting)
    rows(environment, results, competitor, sizes.rows)
    long_run(environment, results, competitor, sizes.run)


def waiting(
    environment: Environment, results: Results, competitor: Jobsvc, seconds: float, numbers: tuple[int, int]
) -> None:
    """The drain while many jobs wait, against the drain while few do; they come by POST /jobs/batch."""
    rates = []
    for number in numbers:
        competitor.prepare(environment)
        competitor.fill(environment, number, 0)
        program = competitor.work(environment)
        eventually(lambda program=program: program.check() or competitor.completed(environment), "jobs are run", 60)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and competitor.completed(environment) < number:
            time.sleep(0.2)
        rates.append(_rate(environment))
        print(f"  {number:,} waiting: {rates[-1]:,.0f} jobs/s", flush=True)
        results.write("growth.waiting_rate", f"{number:,} waiting", rates[-1])
        environment.clear()
    results.write("growth.waiting", JOBSVC, rates[1] / rates[0])


def _rate(environment: Environment) -> float:
    """Jobs a second between the first tenth of the ends and the last one, by the times that stand in the rows."""
    [[number, seconds]] = environment.sql(
        "SELECT count(*), extract(epoch FROM percentile_disc(0.9) WITHIN GROUP (ORDER BY finished_at)"
        " - percentile_disc(0.1) WITHIN GROUP (ORDER BY finished_at))::float FROM jobs WHERE finished_at IS NOT NULL"
    )
    return 0.8 * number / seconds


def rows(environment: Environment, results: Results, competitor: Jobsvc, numbers: tuple[int, int]) -> None:
    """List, get and sweep, over many rows against few, in turns."""
    for number in numbers:
        began = time.perf_counter()
        environment.make(f"rows_{number}", lambda number=number: _seed(environment, number), competitor.template)
        print(f"  {number:,} rows: made in {time.perf_counter() - began:.0f} s", flush=True)
    for _ in range(ROUNDS):
        for number in numbers:
            environment.use(f"rows_{number}")
            for what, took in {**_read_times(environment, competitor), "a sweep": _sweep(environment)}.items():
                results.write(f"growth.{what}", f"{number:,} rows", took)
    ratios: dict[str, float] = {}
    for what in (*PAGES, "a job", "a sweep"):
        few, many = (results.median(f"growth.{what}", f"{number:,} rows") for number in numbers)
        ratios[what] = many / few
        print(f"  {what}: {few:.2f} ms among {numbers[0]:,} rows, {many:.2f} ms among {numbers[1]:,}", flush=True)
    results.write("growth.list", JOBSVC, max(ratios[what] for what in PAGES))
    results.write("growth.get", JOBSVC, ratios["a job"])
    results.write("growth.sweep", JOBSVC, ratios["a sweep"])


def _seed(environment: Environment, number: int) -> None:
    environment.sql(SEED, rows=number)
    environment.sql("VACUUM ANALYZE jobs")


def _read_times(environment: Environment, competitor: Jobsvc) -> dict[str, float]:
    """The medians of a page of each kind, and of a job, in ms as a client sees them."""
    _, port = competitor.serve(environment)
    [[middle]] = environment.sql("SELECT to_char(now() - interval '10 days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    ids = _ids(environment)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = {what: _get(connection, [path.format(middle=middle)] * READS) for what, path in PAGES.items()}
    times["a job"] = _get(connection, [f"/jobs/{random.choice(ids)}" for _ in range(READS)])  # noqa: S311
    connection.close()
    environment.clear()
    return times


def _ids(environment: Environment) -> list[str]:
    """Some jobs from all over the table."""
    return [row[0] for row in environment.sql("SELECT id::text FROM jobs WHERE random() < 0.02 LIMIT 50000")]


def _get(connection: http.client.HTTPConnection, paths: list[str]) -> float:
    times = []
    for path in paths[:10] + paths:
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body: Any = json.loads(answer.read())
        times.append(1000 * (time.perf_counter() - began))
        if answer.status != 200 or body.get("jobs") == []:
            raise BenchError(f"{path}: {answer.status}, {body}")
    return statistics.median(times[10:])


def _sweep(environment: Environment) -> float:
    program = environment.run(sys.executable, "-m", "bench.sweep_timing", "10")
    program.succeed(300)
    return statistics.median(json.loads(program.log.read_text().splitlines()[-1]))


def long_run(environment: Environment, results: Results, competitor: Jobsvc, number: int) -> None:
    """The workers' memory after a tenth of these jobs, and after all; or what of it fits into five minutes."""
    competitor.prepare(environment)
    competitor.fill(environment, number, 0)
    program = competitor.work(environment)
    deadline = time.monotonic() + 300
    tenth = eventually(
        lambda: _memory_after(environment, competitor, program.popen.pid, number // 10), "a tenth is run", 300
    )
    while (done := competitor.completed(environment)) < number and time.monotonic() < deadline:
        program.check()
        time.sleep(0.5)
    whole = usage.memory(program.popen.pid)
    for after, memory in ((number // 10, tenth), (done, whole)):
        print(f"  after {after:,} jobs: {memory.largest:.1f} MB", flush=True)
        results.write("growth.memory_pss", f"after {after:,} jobs", memory.pss)
        results.write("growth.memory_largest", f"after {after:,} jobs", memory.largest)
    if done >= number:
        results.write("growth.memory", JOBSVC, whole.largest / tenth.largest)
    environment.clear()


def _memory_after(environment: Environment, competitor: Jobsvc, pid: int, number: int) -> usage.Memory | None:
    return usage.memory(pid) if competitor.completed(environment) >= number else None
