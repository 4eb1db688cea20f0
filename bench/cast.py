"""Who takes part, and in which of the measurements."""

from dataclasses import dataclass, replace

from bench import drain
from bench.contender import Contender
from bench.node import BullMQ
from bench.ours import Jobsvc, StockRq
from bench.python_peers import Celery, Dramatiq, Procrastinate
from bench.stage import Stage

JOBSVC = "jobsvc"
STOCK = "rq worker"
SIMPLE = "rq SimpleWorker"
BULLMQ = "BullMQ, 50 at once"
BULLMQ_1 = "BullMQ, 1 at once"
BULLMQ_2 = "BullMQ, 2 processes × 25"
CELERY = "Celery prefork"
DRAMATIQ = "Dramatiq"
PROCRASTINATE = "Procrastinate"


@dataclass
class Cast:
    """The contenders of the drain of no-op jobs; all others are variants of these."""

    bullmq: BullMQ
    celery: Celery
    procrastinate: Procrastinate

    @classmethod
    def tuned(cls, stage: Stage, seconds: float) -> "Cast":
        """Find out what suits each peer that can be set up in several ways."""
        peers = (BullMQ(BULLMQ, 2000), Celery(CELERY, 500), Procrastinate(PROCRASTINATE, 200))
        return cls(*(drain.tuned(stage, peer, seconds) for peer in peers))

    @classmethod
    def untuned(cls) -> "Cast":
        """As they are known to be good."""
        return cls(BullMQ(BULLMQ, 2000), Celery(CELERY, 500), Procrastinate(PROCRASTINATE, 200))

    def no_op(self) -> list[Contender]:
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

    def sleeping(self) -> list[Contender]:
        """For jobs that wait: each with fifty at once."""
        return [
            Jobsvc(JOBSVC, 1000, workers=2, concurrency=25),
            replace(self.bullmq, pace=1000),
            replace(self.celery, processes=50, pace=500),
            Dramatiq(DRAMATIQ, 500, threads=25),
            replace(self.procrastinate, concurrency=50, pace=100),
        ]

    def at_the_door(self) -> list[Jobsvc | BullMQ]:
        """For what comes by HTTP."""
        return [Jobsvc(JOBSVC, 1000), self.bullmq]

    def described(self) -> str:
        """What was chosen for the peers."""
        return (
            f"BullMQ with a pool of {self.bullmq.pool} connections, Celery with {self.celery.processes} processes "
            f"(50 for jobs that sleep), Procrastinate with {self.procrastinate.concurrency} at once (likewise 50)"
        )
