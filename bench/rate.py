"""Jobs under a rate limit, against the shortest time that the limit allows."""

from collections.abc import Sequence

from bench import load
from bench.competitors import JOBSVC
from bench.environment import Environment, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.results import Results

LIMITS = (100, 500)
PER = 1.0
"""Seconds in which a limit's number of jobs may start."""

WHOLE, QUICK = 11, 4
"""Windows that are filled."""


def measure(environment: Environment, results: Results, rounds: int, windows: int) -> None:
    """Run jobs of one rate key until all have started."""
    results.notes.append(f"rate: jobs for {windows} windows of {PER:g} s wait from the start")
    for _ in range(rounds):
        for limit in LIMITS:
            times = _starts(environment, limit, limit * windows)
            share = share_of_ideal(times, limit, PER)
            kind = f"{limit} in {PER:g} s"
            results.write("rate.rate", kind, limit / PER * share)
            results.write("rate.share", kind, share)
            results.write("rate.most", kind, most_within(times, PER))
            print(
                f"  {kind}: {share:.3f} of the ideal rate, at most {most_within(times, PER)} in {PER:g} s", flush=True
            )
    results.write("rate.worst", JOBSVC, min(results.median("rate.share", f"{limit} in {PER:g} s") for limit in LIMITS))


def share_of_ideal(times: Sequence[float], limit: int, per: float) -> float:
    """Return what part of the ideal rate was reached, `limit` starts every `per` seconds.

    It is taken from the last start of the first window on, so that the start of the workers is not in it.
    """
    ordered = sorted(times)
    return (len(times) - limit) / limit * per / (ordered[-1] - ordered[limit - 1])


def most_within(times: Sequence[float], per: float) -> int:
    """Return the largest number of starts within less than `per` seconds."""
    ordered, first, most = sorted(times), 0, 0
    for last, time in enumerate(ordered):
        while time - ordered[first] >= per:
            first += 1
        most = max(most, last - first + 1)
    return most


def _starts(environment: Environment, limit: int, number: int) -> list[float]:
    """Return the times at which the jobs started, in seconds."""
    competitor = Jobsvc(JOBSVC, 0)
    competitor.prepare(environment)
    _, port = competitor.serve(environment)
    job = {"rateLimit": {"key": "bench", "limit": limit, "per": PER}}
    load.post_all(load.Client(port), [job] * number)
    program = competitor.work(environment)
    eventually(lambda: program.check() or competitor.completed(environment) >= number, f"{number} jobs end", 120, 0.2)
    rows = environment.sql("SELECT extract(epoch FROM started_at)::float FROM jobs")
    environment.clear()
    return [row[0] for row in rows]
