"""The rate at which waiting jobs are run, and its cost."""

import time
from dataclasses import dataclass

from bench import usage
from bench.competitor import Competitor
from bench.environment import BenchError, Environment, Program, eventually

POLL_SECONDS = 0.4


@dataclass(frozen=True)
class Drain:
    """The figures of workers between their first jobs and their last."""

    jobs: int
    rate: float
    """Jobs a second."""
    cpu: dict[str, float]
    """CPU seconds for 1,000 jobs of `workers`, `postgres` and `valkey`."""
    memory: usage.Memory
    """Of the workers, at the end."""
    redis_bytes: float
    postgres_bytes: float
    """What a waiting job takes."""


@dataclass(frozen=True)
class _Sample:
    at: float
    jobs: int
    cpu: dict[str, float]


def drain(environment: Environment, competitor: Competitor, duration_ms: int, seconds: float) -> Drain:
    """Let a competitor run jobs that wait, for so many seconds or until few are left; no other competitor runs.

    Its `pace` becomes what was seen; where that was so low that the jobs ran out, it is tried again with more.
    """
    while True:
        number = max(int(competitor.pace * seconds * 1.3) // 1000 * 1000, 1000)
        result, ran_out = _once(environment, competitor, duration_ms, seconds, number)
        competitor.pace = max(int(result.rate), 2 * competitor.pace if ran_out else 0)
        if not ran_out:
            return result


def _once(
    environment: Environment, competitor: Competitor, duration_ms: int, seconds: float, number: int
) -> tuple[Drain, bool]:
    """Measure once; also return True if the jobs ran out long before the time.

    The rate is taken between two queries of the database, the first after jobs have ended, the last before all have:
    neither the start of the workers nor their idling at the end is in it.
    """
    competitor.prepare(environment)
    empty = _stored(environment)
    competitor.fill(environment, number, duration_ms)
    full = _stored(environment)
    program = competitor.work(environment)
    first = last = eventually(
        lambda: _has_started(environment, competitor, program), f"{competitor.name} runs jobs", 60
    )
    ran_out = False
    while last.at < first.at + seconds:
        time.sleep(POLL_SECONDS)
        sample = _sample(environment, competitor, program)
        if sample.jobs >= number:
            ran_out = sample.at < first.at + seconds / 2
            last = sample if last is first else last
            break
        last = sample
    program.check()
    jobs = last.jobs - first.jobs
    if not jobs and not ran_out:
        raise BenchError(f"{competitor.name} stands still:\n{program.log.read_text()[-2000:]}")
    result = Drain(
        jobs,
        jobs / (last.at - first.at) if jobs else 0,
        {name: 1000 * (last.cpu[name] - first.cpu[name]) / max(jobs, 1) for name in last.cpu},
        usage.memory(program.popen.pid),
        *((after - before) / number for before, after in zip(empty, full, strict=True)),
    )
    environment.clear()
    return result, ran_out


def _has_started(environment: Environment, competitor: Competitor, program: Program) -> _Sample | None:
    program.check()
    sample = _sample(environment, competitor, program)
    return sample if sample.jobs else None


def _sample(environment: Environment, competitor: Competitor, program: Program) -> _Sample:
    servers = {name: usage.cpu(process.pid) for name, process in environment.servers().items()}
    jobs = competitor.completed(environment)
    return _Sample(time.perf_counter(), jobs, {"workers": usage.cpu(program.popen.pid), **servers})


def _stored(environment: Environment) -> tuple[int, int]:
    """Bytes in Redis and in Postgres."""
    [[size]] = environment.sql(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind IN ('r', 'm')"
    )
    return int(environment.redis.info("memory")["used_memory"]), int(size)
