"""The rate at which an API accepts jobs, and the time until an idle service starts one."""

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

from bench import load, usage
from bench.competitor import BATCH, WithApi, batch, job
from bench.environment import Environment, Program, eventually

CONNECTIONS = 20
BATCH_CONNECTIONS = 4
WARM_UP_SECONDS = 1
LATENCIES = 300
WARM_UP_JOBS = 30


@dataclass(frozen=True)
class Accept:
    """The figures of an API under load, without a worker."""

    rate: float
    """Jobs answered with 202, a second."""
    p50: float
    p99: float
    """Seconds."""
    queued_rate: float
    """Jobs a second when the clock stops only once the last one is in Redis."""
    cpu: dict[str, float]
    """CPU seconds for 1,000 jobs of `api`, `postgres` and `valkey`."""
    memory: usage.Memory


def accept(environment: Environment, competitor: WithApi, seconds: float) -> Accept:
    """POST /jobs over 20 connections."""
    return _accept(environment, competitor, "/jobs", job().encode(), 1, CONNECTIONS, seconds)


def accept_batches(environment: Environment, competitor: WithApi, seconds: float) -> Accept:
    """POST /jobs/batch, 1,000 jobs each, over 4 connections."""
    return _accept(environment, competitor, "/jobs/batch", batch(), BATCH, BATCH_CONNECTIONS, seconds)


def _accept(
    environment: Environment, competitor: WithApi, path: str, body: bytes, jobs: int, connections: int, seconds: float
) -> Accept:
    competitor.prepare(environment)
    program, port = competitor.serve(environment)
    warm = load.post(port, path, body, connections=connections, seconds=WARM_UP_SECONDS)
    before = len(warm.times) * jobs
    _all_queued(environment, competitor, before)
    cpu = _cpu(environment, program)
    began = time.perf_counter()
    seen = load.post(port, path, body, connections=connections, seconds=seconds)
    number = len(seen.times) * jobs
    _all_queued(environment, competitor, before + number)
    took = time.perf_counter() - began
    spent = {name: 1000 * (value - cpu[name]) / number for name, value in _cpu(environment, program).items()}
    memory = usage.memory(program.popen.pid)
    environment.clear()
    return Accept(seen.rate * jobs, seen.quantile(0.5), seen.quantile(0.99), number / took, spent, memory)


def _all_queued(environment: Environment, competitor: WithApi, number: int) -> None:
    eventually(
        lambda: competitor.queued(environment) >= number, f"{competitor.name} has all jobs in its queue", 120, 0.01
    )


def _cpu(environment: Environment, program: Program) -> dict[str, float]:
    servers = {name: usage.cpu(process.pid) for name, process in environment.servers().items()}
    return {"api": usage.cpu(program.popen.pid), **servers}


def start_times(environment: Environment, competitor: WithApi, number: int = LATENCIES) -> list[float]:
    """Seconds from before the POST to the handler's first line, one job at a time on an idle service, ascending."""
    competitor.prepare(environment)
    return start_times_as_is(environment, competitor, number)


def start_times_as_is(environment: Environment, competitor: WithApi, number: int) -> list[float]:
    """Return what `start_times` does, in the database as it is."""
    notes = environment.folder / "starts"
    notes.unlink(missing_ok=True)
    competitor.work(environment)
    _, port = competitor.serve(environment)
    client = load.Client(port)
    wire = load.request("/jobs", json.dumps({"type": "NOTE_START", "payload": {"path": str(notes)}}).encode())
    posted: dict[str, float] = {}
    for _ in range(WARM_UP_JOBS + number):
        at = time.time()
        client.send(wire)
        while (answer := client.receive()) is None:
            pass
        posted[json.loads(answer)["jobId"]] = at
        eventually(lambda: _has_lines(notes, len(posted)), f"{competitor.name} starts a job", 60, 0.005)
        time.sleep(random.uniform(0.005, 0.025))  # noqa: S311  # out of step with anything that polls
    environment.clear()
    started = dict(line.split() for line in notes.read_text().splitlines())
    measured = list(posted)[WARM_UP_JOBS:]
    return sorted(float(started[one]) - posted[one] for one in measured)


def _has_lines(path: Path, number: int) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") >= number
