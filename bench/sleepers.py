"""Async handlers that sleep, a thousand at once in one process, against the shortest time that this takes."""

from collections.abc import Sequence

from bench import load, usage
from bench.competitors import JOBSVC
from bench.environment import Environment, Program, eventually
from bench.jobsvc_stacks import Jobsvc
from bench.results import Results

AT_ONCE = 1000
SLEEP_SECONDS = 1.0
WHOLE, QUICK = (1_000, 5_000), (1_000,)


def measure(environment: Environment, results: Results, rounds: int, numbers: Sequence[int]) -> None:
    """Run each number of jobs in one worker."""
    for _ in range(rounds):
        for number in numbers:
            seconds, memory = _run(environment, number)
            share, kind = ideal_seconds(number) / seconds, f"{number:,} jobs"
            for figure, value in (
                ("seconds", seconds),
                ("share", share),
                ("largest", memory.largest),
                ("pss", memory.pss),
            ):
                results.write(f"async.{figure}", kind, value)
            print(
                f"  {kind}: {seconds:.2f} s, {share:.2f} of the ideal rate, {memory.largest:.0f} MB (largest process)",
                flush=True,
            )


def ideal_seconds(number: int) -> float:
    """Return the shortest time for this number of jobs."""
    return -(-number // AT_ONCE) * SLEEP_SECONDS


def _run(environment: Environment, number: int) -> tuple[float, usage.Memory]:
    """Return the seconds from the first start to the last end, and the workers' memory at its largest."""
    competitor = Jobsvc(JOBSVC, 0, workers=1, concurrency=AT_ONCE)
    competitor.prepare(environment)
    _, port = competitor.serve(environment)
    job = {"type": "SLEEP_ASYNC", "payload": {"seconds": SLEEP_SECONDS}}
    load.post_all(load.Client(port), [job] * number)
    eventually(lambda: competitor.queued(environment) >= number, "all jobs are in their queue")
    program = competitor.work(environment)
    memories: list[usage.Memory] = []
    eventually(lambda: _has_ended(environment, competitor, program, number, memories), f"{number} jobs end", 120, 0.4)
    [[seconds]] = environment.sql("SELECT extract(epoch FROM max(finished_at) - min(started_at))::float FROM jobs")
    environment.clear()
    return seconds, max(memories, key=lambda one: one.largest)


def _has_ended(
    environment: Environment, competitor: Jobsvc, program: Program, number: int, memories: list[usage.Memory]
) -> bool:
    program.check()
    memories.append(usage.memory(program.popen.pid))
    return competitor.completed(environment) >= number
