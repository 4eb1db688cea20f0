"""The original's stack: Express, BullMQ and `pg`."""

import shutil
from dataclasses import dataclass

from bench.competitor import WithApi
from bench.environment import ROOT, Environment, Program

NODE = shutil.which("node") or "node"


@dataclass
class BullMQ(WithApi):
    """Express before it, and worker processes that each run `concurrency` jobs at once."""

    concurrency: int = 50
    pool: int = 20
    """Connections to Postgres of each worker process, and of the API."""
    processes: int = 1

    choices = {"pool": (5, 10, 20, 50)}

    def serve(self, environment: Environment) -> tuple[Program, int]:
        return environment.serve(NODE, str(ROOT / "bench/node/api.js"), POOL=str(self.pool))

    def work(self, environment: Environment) -> Program:
        env = {"CONCURRENCY": str(self.concurrency), "POOL": str(self.pool)}
        return environment.run(NODE, str(ROOT / "bench/node/workers.js"), PROCESSES=str(self.processes), **env)

    def queued(self, environment: Environment) -> int:
        return int(environment.redis.llen("bull:jobs:wait"))
