"""The workloads: what is measured, in which order, and the names of the figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench import usage
from bench.accept import Accept, accept, accept_batches, start_times
from bench.competitor import Competitor, WithApi
from bench.competitors import Competitors
from bench.drain import Drain, drain
from bench.environment import BenchError, Environment
from bench.results import Results
from bench.steady import WHOLE_SECONDS, steady

SLEEP_MS = 10
C = TypeVar("C", bound=Competitor)


@dataclass
class Workloads:
    """The rounds of a run. Every second round runs the competitors in reverse order."""

    environment: Environment
    results: Results
    chosen_competitors: Competitors
    seconds: float
    rounds: int
    quick: bool = False

    def drain(self) -> None:
        """Jobs that do nothing."""
        self._in_turn(self.chosen_competitors.no_op(), lambda one: self._write_drain(one, "drain", 0))

    def sleep(self) -> None:
        """Jobs that sleep for 10 ms."""
        self._in_turn(self.chosen_competitors.sleeping(), lambda one: self._write_drain(one, "sleep", SLEEP_MS))

    def accept(self) -> None:
        """POST /jobs."""
        self._in_turn(
            self.chosen_competitors.http_apis(),
            lambda one: self._write_accept(one.name, "accept", accept(self.environment, one, self.seconds)),
        )

    def batch(self) -> None:
        """POST /jobs/batch."""
        self._in_turn(
            self.chosen_competitors.http_apis(),
            lambda one: self._write_accept(one.name, "batch", accept_batches(self.environment, one, self.seconds)),
        )

    def steady(self) -> None:
        """POST /jobs, with workers that complete the jobs."""

        def measure(one: WithApi) -> str:
            seen = steady(self.environment, one, self.seconds, self.seconds if self.quick else WHOLE_SECONDS)
            for name, value in (("rate", seen.rate), ("p50", 1000 * seen.p50), ("p99", 1000 * seen.p99)):
                self.results.write(f"steady.{name}", one.name, value)
            return f"{seen.rate:,.0f} jobs/s, p50 {1000 * seen.p50:.1f} ms, p99 {1000 * seen.p99:.1f} ms"

        self._in_turn(self.chosen_competitors.http_apis(), measure)

    def start(self) -> None:
        """From POST to the handler."""

        def measure(one: Competitor) -> str:
            times = start_times(self.environment, one)
            p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
            self.results.write("start.p50", one.name, 1000 * p50)
            self.results.write("start.p99", one.name, 1000 * p99)
            return f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms"

        self._in_turn(self.chosen_competitors.http_apis(), measure)

    def _in_turn(self, competitors: Sequence[C], measure: Callable[[C], str]) -> None:
        for number in range(self.rounds):
            for one in competitors[:: 1 if number % 2 == 0 else -1]:
                try:
                    seen = measure(one)
                except BenchError as error:
                    seen = f"broken: {error}"
                    self.results.notes.append(f"round {number + 1}, {one.name}: broken, without figures of this round")
                print(f"  round {number + 1}, {one.name}: {seen}", flush=True)

    def _write_drain(self, one: Competitor, figure: str, duration_ms: int) -> str:
        seen: Drain = drain(self.environment, one, duration_ms, self.seconds)
        self.results.write(f"{figure}.rate", one.name, seen.rate)
        self._write_cpu(figure, one.name, seen.cpu)
        self._write_memory(figure, one.name, seen.memory)
        self.results.write(f"{figure}.redis_bytes", one.name, seen.redis_bytes)
        self.results.write(f"{figure}.postgres_bytes", one.name, seen.postgres_bytes)
        return f"{seen.rate:,.0f} jobs/s ({seen.jobs} jobs)"

    def _write_accept(self, name: str, figure: str, seen: Accept) -> str:
        self.results.write(f"{figure}.rate", name, seen.rate)
        self.results.write(f"{figure}.queued_rate", name, seen.queued_rate)
        self.results.write(f"{figure}.p50", name, 1000 * seen.p50)
        self.results.write(f"{figure}.p99", name, 1000 * seen.p99)
        self._write_cpu(figure, name, seen.cpu)
        self._write_memory(figure, name, seen.memory)
        return f"{seen.rate:,.0f} jobs/s, p50 {1000 * seen.p50:.1f} ms, p99 {1000 * seen.p99:.1f} ms"

    def _write_cpu(self, figure: str, name: str, cpu: dict[str, float]) -> None:
        for whose, spent in cpu.items():
            self.results.write(f"{figure}.cpu_{whose}", name, spent)

    def _write_memory(self, figure: str, name: str, memory: usage.Memory) -> None:
        self.results.write(f"{figure}.processes", name, memory.processes)
        self.results.write(f"{figure}.pss", name, memory.pss)
        self.results.write(f"{figure}.largest", name, memory.largest)
