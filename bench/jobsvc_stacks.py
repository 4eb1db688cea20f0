"""The service itself: its own worker, and RQ's workers running the same jobs."""

import sys
from dataclasses import dataclass

from bench.competitor import WithApi
from bench.environment import BIN, ROOT, Environment, Program

TEMPLATE = "jobsvc_tables"


def make_tables(environment: Environment) -> None:
    """The service's tables, made by its migrations."""
    environment.make(TEMPLATE, lambda: migrate(environment))


def migrate(environment: Environment) -> None:
    """Make the tables in `DATABASE_URL`."""
    environment.run(str(BIN / "flask"), "--app", "wsgi", "db", "upgrade", "-d", str(ROOT / "migrations")).succeed(60)


@dataclass
class Jobsvc(WithApi):
    """The API, and `python worker.py`."""

    workers: int = 2
    concurrency: int | None = None
    """Jobs at once of each worker process; None: as it comes."""

    template = TEMPLATE
    times = """
        SELECT extract(epoch FROM finished_at)::float8 - (payload->>'at')::float8
        FROM jobs WHERE finished_at IS NOT NULL AND (payload->>'at')::float8 >= %(began)s
    """

    def serve(self, environment: Environment) -> tuple[Program, int]:
        return environment.serve(sys.executable, "-m", "jobsvc.serve", JOBSVC_HANDLERS="bench.handlers")

    def work(self, environment: Environment) -> Program:
        chosen = {} if self.concurrency is None else {"JOBSVC_CONCURRENCY": str(self.concurrency)}
        env = {"JOBSVC_HANDLERS": "bench.handlers", "JOBSVC_WORKERS": str(self.workers), **chosen}
        return environment.run(sys.executable, str(ROOT / "worker.py"), **env)

    def queued(self, environment: Environment) -> int:
        return int(environment.redis.llen("rq:queue:jobsvc.default"))

    def completed(self, environment: Environment) -> int:
        return int(environment.sql("SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL")[0][0])


@dataclass
class StockRq(Jobsvc):
    """`rq worker` as it comes, with the settings file that imports everything before it forks."""

    worker_class: str = "rq.Worker"

    def work(self, environment: Environment) -> Program:
        command = (str(BIN / "rq"), "worker", "-c", "jobsvc.rqsettings", "-S", "json", "-w", self.worker_class, "-q")
        return environment.run(*command, JOBSVC_HANDLERS="bench.handlers")
