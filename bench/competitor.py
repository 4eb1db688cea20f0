"""The interface of a competitor."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from bench import load
from bench.environment import Environment, Program, eventually

BATCH = 1000


def job(duration_ms: int = 0) -> str:
    """A job as JSON, as it is posted."""
    return json.dumps({"type": "TEST_JOB", "payload": {"durationMs": duration_ms}})


def batch(duration_ms: int = 0) -> bytes:
    """The body of a batch."""
    return ('{"jobs":[' + ",".join([job(duration_ms)] * BATCH) + "]}").encode()


@dataclass
class Competitor(ABC):
    """A system that runs jobs. `pace`: roughly how many a second, so that none gets more than it can do."""

    name: str
    pace: int

    template: ClassVar[str] = "peers"
    choices: ClassVar[dict[str, tuple[int, ...]]] = {}
    """What may be set for speed, and the values that are tried."""

    def prepare(self, environment: Environment) -> None:
        """An empty database, an empty Redis."""
        environment.fresh(self.template)

    @abstractmethod
    def fill(self, environment: Environment, number: int, duration_ms: int) -> None:
        """Have so many jobs wait, all of them in the queue when this returns, and nothing run."""

    @abstractmethod
    def work(self, environment: Environment) -> Program:
        """Start the workers."""

    def completed(self, environment: Environment) -> int:
        """Return the number of completed jobs."""
        return int(environment.sql("SELECT count(*) FROM job WHERE status = 'COMPLETED'")[0][0])


class WithApi(Competitor):
    """A competitor that accepts jobs by HTTP."""

    times: ClassVar[str] = """
        SELECT extract(epoch FROM updated_at)::float8 - (payload->>'at')::float8
        FROM job WHERE status = 'COMPLETED' AND (payload->>'at')::float8 >= %(began)s
    """
    """Returns the seconds from `at` until the end of each job that ended, of those with an `at` from `began` on."""

    @abstractmethod
    def serve(self, environment: Environment) -> tuple[Program, int]:
        """Start the API; returns its port too."""

    @abstractmethod
    def queued(self, environment: Environment) -> int:
        """Return the number of jobs that wait in Redis."""

    def fill(self, environment: Environment, number: int, duration_ms: int) -> None:
        _, port = self.serve(environment)
        batches = -(-number // BATCH)
        load.post(port, "/jobs/batch", batch(duration_ms), connections=2, number=batches)
        eventually(
            lambda: self.queued(environment) >= batches * BATCH, f"{self.name} has {number} jobs in its queue", 600
        )
        environment.clear()
