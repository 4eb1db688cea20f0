"""The competitors, and the measurements in which each takes part."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from bench.accept import accept
from bench.competitor import Competitor
from bench.drain import drain
from bench.environment import Environment
from bench.jobsvc_stacks import Jobsvc, StockRq
from bench.node import BullMQ
from bench.python_peers import Celery, Dramatiq, Procrastinate

JOBSVC = "jobsvc"
STOCK = "rq worker"
SIMPLE = "rq SimpleWorker"
BULLMQ = "BullMQ, 50 at once"
BULLMQ_1 = "BullMQ, 1 at once"
BULLMQ_2 = "BullMQ, 2 processes × 25"
EXPRESS = "Express + BullMQ"
CELERY = "Celery prefork"
DRAMATIQ = "Dramatiq"
PROCRASTINATE = "Procrastinate"

C = TypeVar("C", bound=Competitor)


@dataclass
class Competitors:
    """The tuned competitors. All others are variants of these, or have nothing to tune."""

    bullmq: BullMQ
    express: BullMQ
    celery: Celery
    procrastinate: Procrastinate

    @classmethod
    def tuned(cls, environment: Environment, seconds: float) -> "Competitors":
        """Find the fastest settings of each competitor that has several."""

        def drains(one: Competitor) -> float:
            return drain(environment, one, 0, seconds).rate

        def accepts(one: BullMQ) -> float:
            return accept(environment, one, seconds).rate

        chosen_competitors = cls.untuned()
        return cls(
            _best(chosen_competitors.bullmq, drains),
            _best(chosen_competitors.express, accepts),
            _best(chosen_competitors.celery, drains),
            _best(chosen_competitors.procrastinate, drains),
        )

    @classmethod
    def untuned(cls) -> "Competitors":
        """Return them with settings that are known to be good."""
        return cls(BullMQ(BULLMQ, 2000), BullMQ(EXPRESS, 2000), Celery(CELERY, 500), Procrastinate(PROCRASTINATE, 200))

    def no_op(self) -> list[Competitor]:
        """For jobs that do nothing: each at its fastest, two processes or all that it needs for two cores."""
        return [
            Jobsvc(JOBSVC, 1000),
            self.bullmq,
            replace(self.bullmq, name=BULLMQ_1, concurrency=1, pace=500),
            replace(self.bullmq, name=BULLMQ_2, concurrency=25, processes=2),
            StockRq(STOCK, 50),
            StockRq(SIMPLE, 100, worker_class="rq.SimpleWorker"),
            self.celery,
            Dramatiq(DRAMATIQ, 1000),
            self.procrastinate,
        ]

    def sleeping(self) -> list[Competitor]:
        """For jobs that wait: each with fifty at once."""
        return [
            Jobsvc(JOBSVC, 1000, workers=2, concurrency=25),
            replace(self.bullmq, pace=1000),
            replace(self.celery, processes=50, pace=500),
            Dramatiq(DRAMATIQ, 500, threads=25),
            replace(self.procrastinate, concurrency=50, pace=100),
        ]

    def http_apis(self) -> list[Jobsvc | BullMQ]:
        """For jobs that come by HTTP."""
        return [Jobsvc(JOBSVC, 1000), self.express]

    def described(self) -> str:
        """Describe the chosen settings."""
        return (
            f"BullMQ's worker with a pool of {self.bullmq.pool} connections, Express with {self.express.pool}; "
            f"Celery with {self.celery.processes} processes, Procrastinate with {self.procrastinate.concurrency} "
            "at once; jobs that sleep: 50 at once with each"
        )


def _best(competitor: C, rate: Callable[[C], float]) -> C:
    """The competitor with that value of its `choices` which gives the highest rate."""
    rates: list[tuple[float, C]] = []
    for name, values in competitor.choices.items():
        for value in values:
            variant = replace(competitor, **{name: value})
            rates.append((rate(variant), variant))
            print(f"  {competitor.name}, {name} {value}: {rates[-1][0]:,.0f} jobs/s", flush=True)
    return max(rates, key=lambda one: one[0])[1]
