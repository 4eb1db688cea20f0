"""Celery, Dramatiq and Procrastinate."""

import sys
from dataclasses import dataclass
from typing import ClassVar

from bench.competitor import Contender
from bench.environment import BIN, Program, Stage

FILL_SECONDS = 300


@dataclass
class PythonPeer(Contender):
    """One whose module in `bench.peers` fills its queue when it is run."""

    module: ClassVar[str] = ""

    def fill(self, stage: Stage, number: int, duration_ms: int) -> None:
        stage.run(sys.executable, "-m", self.module, str(number), str(duration_ms)).succeed(FILL_SECONDS)


@dataclass
class Celery(PythonPeer):
    """Processes that each run one task at a time."""

    processes: int = 8
    module = "bench.peers.celery_app"
    choices = {"processes": (2, 4, 8, 16)}

    def work(self, stage: Stage) -> Program:
        lean = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")
        pool = ("-P", "prefork", "-c", str(self.processes))
        return stage.run(str(BIN / "celery"), "-A", self.module, "worker", *pool, *lean)


@dataclass
class Dramatiq(PythonPeer):
    """Two processes of threads."""

    threads: int = 8
    module = "bench.peers.dramatiq_app"

    def work(self, stage: Stage) -> Program:
        return stage.run(str(BIN / "dramatiq"), self.module, "--processes", "2", "--threads", str(self.threads))


@dataclass
class Procrastinate(PythonPeer):
    """One process of coroutines."""

    concurrency: int = 10
    module = "bench.peers.procrastinate_app"
    choices = {"concurrency": (5, 10, 20)}

    def work(self, stage: Stage) -> Program:
        app = f"--app={self.module}.app"
        return stage.run(str(BIN / "procrastinate"), app, "worker", "-c", str(self.concurrency), POOL="10")
