"""Celery, Dramatiq and Procrastinate."""

import sys
from dataclasses import dataclass
from typing import ClassVar

from bench.competitor import Competitor
from bench.environment import BIN, Environment, Program

FILL_SECONDS = 300


@dataclass
class PythonPeer(Competitor):
    """A competitor in Python. Its module in `bench.peers` fills the queue when it is run."""

    module: ClassVar[str] = ""

    def fill(self, environment: Environment, number: int, duration_ms: int) -> None:
        environment.run(sys.executable, "-m", self.module, str(number), str(duration_ms)).succeed(FILL_SECONDS)


@dataclass
class Celery(PythonPeer):
    """Processes that each run one task at a time."""

    processes: int = 8
    module = "bench.peers.celery_app"
    choices = {"processes": (2, 4, 8, 16)}

    def work(self, environment: Environment) -> Program:
        lean = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")
        pool = ("-P", "prefork", "-c", str(self.processes))
        return environment.run(str(BIN / "celery"), "-A", self.module, "worker", *pool, *lean)


@dataclass
class Dramatiq(PythonPeer):
    """Two processes of threads."""

    threads: int = 8
    module = "bench.peers.dramatiq_app"

    def work(self, environment: Environment) -> Program:
        return environment.run(str(BIN / "dramatiq"), self.module, "--processes", "2", "--threads", str(self.threads))


@dataclass
class Procrastinate(PythonPeer):
    """One process of coroutines."""

    concurrency: int = 10
    module = "bench.peers.procrastinate_app"
    choices = {"concurrency": (5, 10, 20)}

    def work(self, environment: Environment) -> Program:
        app = f"--app={self.module}.app"
        return environment.run(str(BIN / "procrastinate"), app, "worker", "-c", str(self.concurrency), POOL="10")
