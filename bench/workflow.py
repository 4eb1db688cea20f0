"""A workflow of many jobs, each step of it a hundred times as wide as the one before, against as many plain jobs."""

import time
from collections.abc import Callable
from typing import Any

from bench import load
from bench.competitors import JOBSVC
from bench.environment import Environment, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.results import Results

FAN_OUT = 100
WHOLE, QUICK = 10_000, 1_000
SECONDS = 120
"""Longest time for all jobs to end."""

Jobs = list[dict[str, Any]]
Post = Callable[[Jobs], list[str]]


def plain(number: int, post: Post) -> None:
    """Post jobs that depend on none."""
    post([{}] * number)


def fan_out(number: int, post: Post) -> None:
    """Post a root with its hundred dependents in one request, then the leaves, which depend on those."""
    first = [{"ref": "root"}, *({"dependsOn": ["root"]} for _ in range(FAN_OUT))]
    middle = post(first)[1:]
    post([{"dependsOn": [middle[leaf % FAN_OUT]]} for leaf in range(number - len(first))])


KINDS = {"plain jobs": plain, "workflow": fan_out}


def measure(environment: Environment, results: Results, rounds: int, number: int) -> None:
    """Post each kind of jobs while no worker runs, then run them."""
    results.notes.append(f"workflow: 1 job, then {FAN_OUT}, then {number - 1 - FAN_OUT:,} that depend on them")
    for round_ in range(rounds):
        rates = {}
        for kind in list(KINDS)[:: 1 if round_ % 2 == 0 else -1]:
            rates[kind] = _measure(environment, results, kind, number)
        results.write("workflow.ratio", JOBSVC, rates["workflow"] / rates["plain jobs"])


def _measure(environment: Environment, results: Results, kind: str, number: int) -> float:
    """Return the jobs a second from their first POST to their last end, without the start of the workers."""
    competitor = Jobsvc(JOBSVC, 0)
    competitor.prepare(environment)
    _, port = competitor.serve(environment)
    client = load.Client(port)
    began = time.perf_counter()
    KINDS[kind](number, lambda jobs: load.post_all(client, jobs))
    posted = time.perf_counter() - began
    eventually(lambda: competitor.queued(environment) >= 1, "the first job is in its queue")
    before = _transactions(environment)
    program = competitor.work(environment)
    eventually(
        lambda: program.check() or competitor.completed(environment) >= number, f"{number} jobs end", SECONDS, 0.2
    )
    [[completed, ran]] = environment.sql(
        "SELECT count(*) FILTER (WHERE status = 'COMPLETED'),"
        " extract(epoch FROM max(finished_at) - min(started_at))::float FROM jobs"
    )
    environment.clear()
    eventually(lambda: _is_alone(environment), "connections are closed")
    transactions = (_transactions(environment) - before) / number
    rate = completed / (posted + ran)
    for figure, value in (
        ("rate", rate),
        ("posted", number / posted),
        ("drained", completed / ran),
        ("transactions", 1000 * transactions),
    ):
        results.write(f"workflow.{figure}", kind, value)
    print(
        f"  {kind}: {rate:,.0f} jobs/s, posted at {number / posted:,.0f} jobs/s, then run at"
        f" {completed / ran:,.0f} jobs/s with {1000 * transactions:.0f} transactions for 1,000 jobs",
        flush=True,
    )
    return rate


def _transactions(environment: Environment) -> int:
    """Return the number of transactions of the database that were committed, by sessions that have ended or paused."""
    statement = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    return int(environment.sql(statement)[0][0])


def _is_alone(environment: Environment) -> bool:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    return bool(environment.sql(statement)[0][0] == 1)
