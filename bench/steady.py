"""The highest rate at which an API and its workers, on one machine, accept jobs and complete them soon.

A job's time goes from the moment at which it was to be sent, by the load generator's clock, until the time of its end
in its row, by Postgres' clock; the difference of both clocks is measured and taken off.
"""

import json
import time
from dataclasses import dataclass

from bench import load
from bench.accept import CONNECTIONS
from bench.competitor import WithApi
from bench.environment import BenchError, Environment, eventually

MAX_SECONDS = 0.1
"""Within this time 99 of 100 jobs must be completed."""

WHOLE_SECONDS = 30
"""Seconds for which the rate must hold; it is searched for with shorter trials."""

PRECISION = 1.04
"""Ratio of neighbouring rates at which the search ends."""

DRAIN_SECONDS = 60
"""Longest time for the jobs of a trial to end."""


@dataclass(frozen=True)
class Steady:
    """The rate (jobs a second), and the times of its jobs in seconds."""

    rate: float
    p50: float
    p99: float


def steady(environment: Environment, competitor: WithApi, seconds: float, whole: float = WHOLE_SECONDS) -> Steady:
    """Find the highest rate: by bisection with trials of so many seconds, then with one of `whole` seconds."""
    competitor.prepare(environment)
    program = competitor.work(environment)
    _, port = competitor.serve(environment)

    def trial(rate: float, seconds: float) -> Steady | None:
        program.check()
        seen = _trial(environment, competitor, port, rate, seconds)
        print(f"    {competitor.name}, {rate:,.0f} jobs/s for {seconds:g} s: {_described(seen)}", flush=True)
        return seen if seen and seen.p99 <= MAX_SECONDS else None

    trial(competitor.pace / 2, min(seconds, 3))  # warm-up
    good, bad = 0.0, 0.0
    rate = float(competitor.pace)
    while not bad or bad > good * PRECISION:
        if trial(rate, seconds):
            good = rate
        else:
            bad = rate
        rate = (good * bad) ** 0.5 if good and bad else 1.5 * rate if good else rate / 2
        if rate < 1:
            raise BenchError(f"{competitor.name} completes no job in time")
    lowest = good / 2
    while not (found := trial(good, whole)):
        good *= 0.95
        if good < lowest:
            raise BenchError(f"{competitor.name} does not hold half of the rate that it reached in {seconds:g} s")
    competitor.pace = int(found.rate)
    environment.clear()
    return found


def _trial(environment: Environment, competitor: WithApi, port: int, rate: float, seconds: float) -> Steady | None:
    """Post jobs at this rate, and wait for all to end; returns their times, None if they were not answered in time."""
    before, began = competitor.completed(environment), time.time()
    answered = load.post_at(port, rate, seconds, connections=CONNECTIONS, body=_body)
    eventually(
        lambda: competitor.completed(environment) >= before + answered, f"{competitor.name} ends jobs", DRAIN_SECONDS
    )
    if answered < int(rate * seconds):
        return None
    ahead = _clock_difference(environment)
    times = sorted(row[0] - ahead for row in environment.sql(competitor.times, began=began))
    return Steady(rate, times[len(times) // 2], times[len(times) * 99 // 100])


def _body(at: float) -> bytes:
    return json.dumps({"type": "SENT", "payload": {"at": at}}).encode()


def _clock_difference(environment: Environment) -> float:
    """Return the seconds by which Postgres' clock is ahead of this machine's."""
    before = time.time()
    [[there]] = environment.sql("SELECT extract(epoch FROM clock_timestamp())::float8")
    return float(there) - (before + time.time()) / 2


def _described(seen: Steady | None) -> str:
    return f"p50 {1000 * seen.p50:.1f} ms, p99 {1000 * seen.p99:.1f} ms" if seen else "not kept up"
