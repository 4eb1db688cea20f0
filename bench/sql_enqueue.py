"""Jobs that an application enqueues in SQL, against POST and POST of batches."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import psycopg2

from bench.accept import BATCH_CONNECTIONS, CONNECTIONS, WARM_UP_SECONDS, Accept, accept, accept_batches
from bench.competitor import BATCH
from bench.competitors import JOBSVC
from bench.environment import BenchError, Environment, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.results import Results

ONE = """SELECT jobsvc_enqueue('TEST_JOB', '{"durationMs": 0}')"""
MANY = """SELECT count(jobsvc_enqueue('TEST_JOB', '{"durationMs": 0}')) FROM generate_series(1, 1000)"""


@dataclass(frozen=True)
class Statement:
    """A statement, each in a transaction of its own, and how it is sent."""

    sql: str
    jobs: int
    connections: int


KINDS: dict[str, Statement | Callable[[Environment, Jobsvc, float], Accept]] = {
    "SQL, one job a transaction": Statement(ONE, 1, CONNECTIONS),
    "POST /jobs": accept,
    "SQL, 1,000 jobs a transaction": Statement(MANY, BATCH, BATCH_CONNECTIONS),
    "POST /jobs/batch": accept_batches,
}


def measure(environment: Environment, results: Results, rounds: int, seconds: float) -> None:
    """Enqueue for some seconds by each kind; no worker runs."""
    competitor = Jobsvc(JOBSVC, 0)
    for round_ in range(rounds):
        for kind in list(KINDS)[:: 1 if round_ % 2 == 0 else -1]:
            match KINDS[kind]:
                case Statement() as statement:
                    rate, queued = _enqueue(environment, competitor, statement, seconds)
                case post:
                    seen = post(environment, competitor, seconds)
                    rate, queued = seen.rate, seen.queued_rate
            results.write("sql.rate", kind, rate)
            results.write("sql.queued_rate", kind, queued)
            print(f"  {kind}: {rate:,.0f} jobs/s, {queued:,.0f} until all are in Redis", flush=True)


def _enqueue(environment: Environment, competitor: Jobsvc, statement: Statement, seconds: float) -> tuple[float, float]:
    """Return the jobs a second that were committed, and those until the last one is in Redis."""
    competitor.prepare(environment)
    competitor.serve(environment)
    url = environment.env["DATABASE_URL"]
    before = execute(url, Statement(ONE, 1, 1), WARM_UP_SECONDS)
    began = time.perf_counter()
    number = statement.jobs * execute(url, statement, seconds)
    took = time.perf_counter() - began
    eventually(lambda: competitor.queued(environment) >= before + number, "all jobs are in their queue", 120, 0.01)
    queued = time.perf_counter() - began
    environment.clear()
    return number / took, number / queued


def execute(url: str, statement: Statement, seconds: float) -> int:
    """Execute a statement again and again on each of its connections; returns how often. Raises BenchError."""
    deadline = time.perf_counter() + seconds

    def run(_: int) -> int:
        count = 0
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not count or time.perf_counter() < deadline:
                cursor.execute(statement.sql)
                count += 1
        return count

    try:
        with ThreadPoolExecutor(statement.connections) as threads:
            return sum(threads.map(run, range(statement.connections)))
    except psycopg2.Error as error:
        raise BenchError(f"{statement.sql}: {error}") from error
