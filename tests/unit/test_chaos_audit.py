"""The account of `make chaos`: it finds each broken promise, and excuses only what a strike explains."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.audit import Run, audit
from tests.chaos.faults import Strike
from tests.chaos.load import Accepted

PLAIN = Accepted("a", "plain", {"retry": {"interval": [0.2, 1]}})
FAILING = Accepted("a", "failing", {"retry": {"interval": 0.3}})
WORKER, OTHER = 7, 8


def run(fence: int, begun_at: float, end: str | None = "returned", **more: Any) -> Run:
    return Run("a", fence, begun_at, [100 + fence, WORKER], begun_at + 0.1 if end else None, end, **more)


def row(status: str = "COMPLETED", run_at: float | None = None) -> Any:
    return SimpleNamespace(status=status, run_at=run_at)


def ended(outcome: str, finished_at: float = 0, error_type: str | None = None) -> Any:
    return SimpleNamespace(outcome=outcome, finished_at=finished_at, error_type=error_type)


def killed(worker: int, at: float) -> Strike:
    return Strike("worker killed", at, {worker}, healed_at=at)


def account(
    accepted: Accepted = PLAIN,
    job: Any = None,
    runs: list[Run] | None = None,
    attempts: dict[int, Any] | None = None,
    strikes: list[Strike] | None = None,
) -> set[str]:
    """The promises found broken."""
    jobs = {"a": job} if job else {}
    return set(audit([accepted], jobs, {"a": attempts or {}}, {"a": runs or []}, strikes or [], 8.5).broken)


LOST, TWICE, EARLY = "lost", "ran twice although no worker was lost", "ran before its time"
GIVEN_UP = "given up for lost while its worker lived"
OTHERWISE, LATE = "ended otherwise than meant", "recovered later than promised"


def test_successful_job_is_accepted() -> None:
    assert account(job=row(), runs=[run(1, 10)]) == set()


@pytest.mark.parametrize("job", [None, row("PENDING"), row("PROCESSING"), row("RETRYING")])
def test_missing_or_unfinished_job_is_lost(job: Any) -> None:
    assert account(job=job) == {LOST}


def test_unexpected_outcome_is_reported() -> None:
    planned, other = ended("failed", error_type="PlannedFailure"), ended("failed", error_type="KeyError")
    assert account(job=row("FAILED")) == {OTHERWISE}
    assert account(FAILING, row("COMPLETED")) == {OTHERWISE}
    assert account(FAILING, row("FAILED"), attempts={1: planned}) == set()
    assert account(FAILING, row("FAILED"), attempts={1: planned, 2: other}) == {OTHERWISE}


def test_second_run_needs_a_fault_that_explains_it() -> None:
    twice = [run(1, 10), run(2, 20)]
    assert account(job=row(), runs=twice) == {TWICE}
    assert account(job=row(), runs=[run(1, 10, None), run(2, 20)]) == {TWICE}
    assert account(job=row(), runs=[run(1, 10, "raised"), run(2, 20)]) == set()
    assert account(job=row(), runs=[run(1, 10, None), run(2, 20)], attempts={1: ended("handed-back")}) == set()
    assert account(job=row(), runs=twice, strikes=[killed(WORKER, 10.05)]) == set()
    assert account(job=row(), runs=twice, strikes=[killed(OTHER, 10.05)]) == {TWICE}
    assert account(job=row(), runs=twice, strikes=[killed(WORKER, 9)]) == {TWICE}
    assert account(job=row(), runs=twice, strikes=[killed(WORKER, 19)]) == {TWICE}  # its outcome was stored long before
    orphaned = Run("a", 1, 10, [101, 1])
    assert account(job=row(), runs=[orphaned, run(2, 20)], strikes=[killed(OTHER, 9.9)]) == set()
    assert account(job=row(), runs=[orphaned, run(2, 20)], strikes=[killed(OTHER, 11)]) == {TWICE}
    away = Strike("Postgres killed", 10.05, healed_at=18)
    assert account(job=row(), runs=twice, strikes=[away, killed(WORKER, 19)]) == set()


def test_stop_during_an_outage_of_postgres_explains_a_lost_attempt() -> None:
    runs, attempts = [run(1, 10), run(2, 20)], {1: ended("lost", 18)}
    told = Strike("workers rolled", 10.05, told_to_stop={WORKER}, healed_at=10.05)
    away = Strike("Postgres killed", 10.05, healed_at=18)
    assert account(job=row(), runs=runs, attempts=attempts, strikes=[told, away]) == set()
    assert account(job=row(), runs=runs, attempts=attempts, strikes=[told]) == {TWICE, GIVEN_UP}
    later = Strike("Postgres killed", 16, healed_at=18)
    assert account(job=row(), runs=runs, attempts=attempts, strikes=[told, later]) == {TWICE, GIVEN_UP}


def test_repeated_run_of_one_start_is_reported() -> None:
    assert account(job=row(), runs=[run(1, 10, begun_twice=True)], strikes=[killed(WORKER, 10)]) == {TWICE}


def test_early_run_is_reported() -> None:
    assert account(job=row(run_at=12), runs=[run(1, 11)]) == {EARLY}
    assert account(job=row(run_at=12), runs=[run(1, 12)]) == set()
    assert account(job=row(), runs=[run(1, 10, "raised"), run(2, 10.2)]) == {EARLY}


def test_recovered_attempt_needs_a_fault_and_is_on_time() -> None:
    runs = [run(1, 10, None), run(2, 20)]
    strike = killed(WORKER, 10.05)
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 18)}, strikes=[strike]) == set()
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 19)}, strikes=[strike]) == {LATE}
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 18)}) == {TWICE, GIVEN_UP}
    later = killed(WORKER, 18.5)
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 18)}, strikes=[later]) == {GIVEN_UP}
    away = Strike("Postgres killed", 11, healed_at=14)
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 19)}, strikes=[strike, away]) == set()
