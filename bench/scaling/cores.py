"""Jobs a second with one process and with several, and what a job costs in each process."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import load
from bench.accept import CONNECTIONS, WARM_UP_SECONDS
from bench.competitor import job
from bench.competitors import JOBSVC
from bench.environment import Program, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.scaling.meter import Meter, difference, table
from bench.scaling.servers import ScalingEnvironment

HEADINGS = (
    *("", "jobs/s", "µs CPU a job: workers", "API", "Postgres", "Redis", "transactions / 1,000 jobs"),
    *("row updates a job", "of these HOT, %", "WAL bytes a job", "page images / 1,000", "WAL fsyncs / 1,000"),
    *("ms a fsync", "Redis commands / 1,000"),
)
WORKERS = (1, 2, 4)
APIS = (1, 2)


def measure(environment: ScalingEnvironment, seconds: float) -> None:
    """Print the drain with 1, 2 and 4 worker processes, POST with 1 and 2 API processes, and both at once."""
    rows, waits = [], []

    def add(what: str, found: tuple[dict[str, float], float, str]) -> None:
        spent, jobs, waited = found
        rows.append(_row(what, spent, jobs))
        waits.append((what, waited))
        print(f"  {what}: {jobs / spent['at']:,.0f} jobs/s", flush=True)

    for number in WORKERS:
        add(f"run, {number} worker processes", _drain(environment, number, seconds))
    for number in APIS:
        add(f"POST /jobs, {number} API processes", _post(environment, number, 0, seconds))
    add("both at once, 1 API, 2 workers", _post(environment, 1, 2, seconds))
    table(HEADINGS, rows)
    table(("", "what Postgres' active sessions wait for"), waits)


def _row(what: str, spent: dict[str, float], jobs: float) -> list[object]:
    cpu = [1e6 * spent.get(f"cpu {name}", 0) / jobs for name in ("workers", "api", "postgres", "valkey")]
    return [
        what,
        jobs / spent["at"],
        *cpu,
        1000 * spent["transactions"] / jobs,
        spent["updates"] / jobs,
        100 * spent["hot_updates"] / max(spent["updates"], 1),
        spent["wal_bytes"] / jobs,
        1000 * spent["page_images"] / jobs,
        1000 * spent["fsyncs"] / jobs,
        spent["fsync_ms"] / max(spent["fsyncs"], 1),
        1000 * spent["redis commands"] / jobs,
    ]


def _drain(environment: ScalingEnvironment, workers: int, seconds: float) -> tuple[dict[str, float], float, str]:
    """Let workers run jobs that wait, for so many seconds; with twice the jobs if these run out."""
    number = int(15_000 * (seconds + 1))
    competitor = Jobsvc(JOBSVC, 0, workers=workers)
    while True:
        competitor.prepare(environment)
        competitor.fill(environment, number, 0)
        program = competitor.work(environment)
        eventually(lambda program=program: program.check() or competitor.completed(environment), "jobs are run", 60)
        found = _measure(environment, {"workers": [program]}, lambda: competitor.completed(environment), seconds)
        ran_out = competitor.completed(environment) >= number
        environment.clear()
        if not ran_out:
            return found
        number *= 2


def _post(
    environment: ScalingEnvironment, apis: int, workers: int, seconds: float
) -> tuple[dict[str, float], float, str]:
    """Post for so many seconds over 20 connections, and count what was accepted, or with workers what was run."""
    competitor = Jobsvc(JOBSVC, 0, workers=workers)
    competitor.prepare(environment)
    programs, ports = zip(*(competitor.serve(environment) for _ in range(apis)), strict=True)
    running = [competitor.work(environment)] if workers else []

    def count() -> int:
        return competitor.completed(environment) if workers else environment.sql("SELECT count(*) FROM jobs")[0][0]

    with ThreadPoolExecutor(apis) as threads:
        loads = [
            threads.submit(
                load.post,
                port,
                "/jobs",
                job().encode(),
                connections=CONNECTIONS // apis,
                seconds=seconds + 2 * WARM_UP_SECONDS + 1,
            )
            for port in ports
        ]
        eventually(lambda: count() > 1000, "jobs are accepted or run", 60)
        found = _measure(environment, {"api": programs, "workers": running}, count, seconds)
        for one in loads:
            one.result()
    environment.clear()
    return found


def _measure(
    environment: ScalingEnvironment, programs: dict[str, Sequence[Program]], count: Callable[[], int], seconds: float
) -> tuple[dict[str, float], float, str]:
    with Meter(environment, programs) as meter:
        jobs, before = count(), meter.read()
        meter.watch(seconds)
        after, ended = meter.read(), count()
    return difference(before, after), ended - jobs, meter.top_waits()
