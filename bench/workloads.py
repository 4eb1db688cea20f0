"""What is measured, in which order, and what it is called in the book."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench import usage
from bench.accept import Accept, accept, accept_batches, start_times
from bench.competitor import Contender
from bench.competitors import Cast
from bench.drain import Drain, drain
from bench.environment import Broken, Stage
from bench.results import Book

SLEEP_MS = 10
C = TypeVar("C", bound=Contender)


@dataclass
class Plan:
    """The rounds of a run. In every second one the contenders play in reverse order."""

    stage: Stage
    book: Book
    cast: Cast
    seconds: float
    rounds: int

    def drain(self) -> None:
        """Jobs that do nothing."""
        self._in_turn(self.cast.no_op(), lambda one: self._write_drain(one, "drain", 0))

    def sleep(self) -> None:
        """Jobs that sleep for 10 ms."""
        self._in_turn(self.cast.sleeping(), lambda one: self._write_drain(one, "sleep", SLEEP_MS))

    def accept(self) -> None:
        """POST /jobs."""
        self._in_turn(
            self.cast.at_the_door(),
            lambda one: self._write_accept(one.name, "accept", accept(self.stage, one, self.seconds)),
        )

    def batch(self) -> None:
        """POST /jobs/batch."""
        self._in_turn(
            self.cast.at_the_door(),
            lambda one: self._write_accept(one.name, "batch", accept_batches(self.stage, one, self.seconds)),
        )

    def start(self) -> None:
        """From POST to the handler."""

        def measure(one: Contender) -> str:
            times = start_times(self.stage, one)
            p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
            self.book.write("start.p50", one.name, 1000 * p50)
            self.book.write("start.p99", one.name, 1000 * p99)
            return f"p50 {1000 * p50:.1f} ms, p99 {1000 * p99:.1f} ms"

        self._in_turn(self.cast.at_the_door(), measure)

    def _in_turn(self, contenders: Sequence[C], measure: Callable[[C], str]) -> None:
        for number in range(self.rounds):
            for one in contenders[:: 1 if number % 2 == 0 else -1]:
                try:
                    seen = measure(one)
                except Broken as error:
                    seen = f"broken: {error}"
                    self.book.notes.append(f"round {number + 1}, {one.name}: broken, without figures of this round")
                print(f"  round {number + 1}, {one.name}: {seen}", flush=True)

    def _write_drain(self, one: Contender, figure: str, duration_ms: int) -> str:
        seen: Drain = drain(self.stage, one, duration_ms, self.seconds)
        self.book.write(f"{figure}.rate", one.name, seen.rate)
        self._write_cpu(figure, one.name, seen.cpu)
        self._write_memory(figure, one.name, seen.memory)
        self.book.write(f"{figure}.redis_bytes", one.name, seen.redis_bytes)
        self.book.write(f"{figure}.postgres_bytes", one.name, seen.postgres_bytes)
        return f"{seen.rate:,.0f} jobs/s ({seen.jobs} jobs)"

    def _write_accept(self, name: str, figure: str, seen: Accept) -> str:
        self.book.write(f"{figure}.rate", name, seen.rate)
        self.book.write(f"{figure}.queued_rate", name, seen.queued_rate)
        self.book.write(f"{figure}.p50", name, 1000 * seen.p50)
        self.book.write(f"{figure}.p99", name, 1000 * seen.p99)
        self._write_cpu(figure, name, seen.cpu)
        self._write_memory(figure, name, seen.memory)
        return f"{seen.rate:,.0f} jobs/s, p50 {1000 * seen.p50:.1f} ms, p99 {1000 * seen.p99:.1f} ms"

    def _write_cpu(self, figure: str, name: str, cpu: dict[str, float]) -> None:
        for whose, spent in cpu.items():
            self.book.write(f"{figure}.cpu_{whose}", name, spent)

    def _write_memory(self, figure: str, name: str, memory: usage.Memory) -> None:
        self.book.write(f"{figure}.processes", name, memory.processes)
        self.book.write(f"{figure}.pss", name, memory.pss)
        self.book.write(f"{figure}.largest", name, memory.largest)
