"""The goals of the service, each a ratio inside one run."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import competitors
from bench.results import Results


@dataclass(frozen=True)
class Goal:
    """A line of the table: what is compared, a bound, and how the run's value is read."""

    what: str
    bound: float
    needs: tuple[tuple[str, str], ...]
    """The figures and competitors without which there is no value."""
    value: Callable[[Results], float]
    at_most: bool = False
    unit: str = "×"

    def assess(self, results: Results) -> tuple[str, str]:
        """The value as text, and `pass`, `short` or `not measured`."""
        if not all(results.has(figure, competitor) for figure, competitor in self.needs):
            return "–", "not measured"
        value = self.value(results)
        reached = value <= self.bound if self.at_most else value >= self.bound
        return f"{value:,.2f} {self.unit}", "pass" if reached else "short"

    @property
    def asked(self) -> str:
        """The bound as text."""
        return f"{'≤' if self.at_most else '≥'} {self.bound:g} {self.unit}"


def _against(what: str, figure: str, peer: str, bound: float, *, at_most: bool = False) -> Goal:
    needs = ((figure, competitors.JOBSVC), (figure, peer))
    return Goal(what, bound, needs, lambda results: results.ratio(figure, competitors.JOBSVC, peer), at_most)


def _figure(what: str, figure: str, bound: float, unit: str, *, at_most: bool = True) -> Goal:
    return Goal(
        what,
        bound,
        ((figure, competitors.JOBSVC),),
        lambda results: results.median(figure, competitors.JOBSVC),
        at_most=at_most,
        unit=unit,
    )


GOALS = [
    _against("drain of no-op jobs against BullMQ, 50 at once", "drain.rate", competitors.BULLMQ, 2),
    _against("… against stock rq worker, imports before the fork", "drain.rate", competitors.STOCK, 100),
    _against("… against Dramatiq", "drain.rate", competitors.DRAMATIQ, 3),
    _against("… against Celery prefork", "drain.rate", competitors.CELERY, 7),
    _against("… against Procrastinate", "drain.rate", competitors.PROCRASTINATE, 15),
    _against("drain of 10 ms jobs against BullMQ, 50 at once each", "sleep.rate", competitors.BULLMQ, 1.2),
    _against("POST /jobs at 20 connections against Express + BullMQ", "accept.rate", competitors.EXPRESS, 1.4),
    _against("… its p99", "accept.p99", competitors.EXPRESS, 0.8, at_most=True),
    _against("POST /jobs/batch, jobs/s, against one INSERT + addBulk", "batch.rate", competitors.EXPRESS, 1.5),
    _against("… until all are in Redis", "batch.queued_rate", competitors.EXPRESS, 1.5),
    _against("steady state, POST to completion within 0.1 s (p99)", "steady.rate", competitors.EXPRESS, 1.3),
    _figure("POST to the handler's start, idle, p50", "start.p50", 5, "ms"),
    _figure("… p99", "start.p99", 15, "ms"),
    _figure("rate-limited drain against its ideal, the worst of the limits", "rate.worst", 0.9, "×", at_most=False),
    _figure("drain with many waiting against few", "growth.waiting", 0.9, "×", at_most=False),
    _figure("a page of the list, many rows against few, the slowest of the kinds", "growth.list", 2, "×"),
    _figure("get, many rows against few", "growth.get", 2, "×"),
    _figure("a sweep, many rows against few", "growth.sweep", 2, "×"),
    _figure("memory of the API's largest process (resident)", "accept.largest", 90, "MB"),
    _figure("memory of the workers' largest process (resident)", "drain.largest", 90, "MB"),
    _figure("memory of the workers after many jobs against a tenth of them", "growth.memory", 1.1, "×"),
    _figure("the slowest page of the console among 1,000,000 jobs, p95", "console.slowest", 100, "ms"),
    _figure("a first visit of the console, gzipped", "console.visit", 60, "KB"),
    _figure("lines of the console's code", "console.lines", 1500, "lines"),
]
