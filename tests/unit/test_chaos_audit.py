"""The audit of `make chaos` finds each broken promise, and accepts only what a fault explains."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.audit import Run, audit
from tests.chaos.faults import Injection
from tests.chaos.load import Accepted

PLAIN = Accepted("a", "plain", {"retry": {"interval": [0.2, 1]}})
FAILING = Accepted("a", "failing", {"retry": {"interval": 0.3}})
WORKER, OTHER = 7, 8


def run(fence: int, started_at: float, end: str | None = "returned", **more: Any) -> Run:
    return Run("a", fence, started_at, [100 + fence, WORKER], started_at + 0.1 if end else None, end, **more)


def row(
    status: str = "COMPLETED",
    run_at: float | None = None,
    finished_at: float | None = None,
    error_type: str | None = None,
) -> Any:
    error = {"type": error_type} if error_type else None
    return SimpleNamespace(status=status, run_at=run_at, finished_at=finished_at, error=error)


def ended(outcome: str, finished_at: float = 0, error_type: str | None = None) -> Any:
    return SimpleNamespace(outcome=outcome, finished_at=finished_at, error_type=error_type)


def killed(worker: int, at: float) -> Injection:
    return Injection("worker killed", at, lost={worker}, healed_at=at)


def account(
    accepted: Accepted = PLAIN,
    job: Any = None,
    runs: list[Run] | None = None,
    attempts: dict[int, Any] | None = None,
    injections: list[Injection] | None = None,
) -> set[str]:
    """The promises found broken."""
    jobs = {"a": job} if job else {}
    return set(audit([accepted], jobs, {"a": attempts or {}}, {"a": runs or []}, injections or [], 8.5).broken)


LOST, TWICE, EARLY = "lost", "ran twice although no worker was lost", "ran before its time"
WRONGLY_RECOVERED = "recovered while its worker lived"
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
    assert account(job=row(), runs=twice, injections=[killed(WORKER, 10.05)]) == set()
    assert account(job=row(), runs=twice, injections=[killed(OTHER, 10.05)]) == {TWICE}
    assert account(job=row(), runs=twice, injections=[killed(WORKER, 9)]) == {TWICE}
    assert account(job=row(), runs=twice, injections=[killed(WORKER, 19)]) == {
        TWICE
    }  # its outcome was stored long before
    orphaned = Run("a", 1, 10, [101, 1])
    assert account(job=row(), runs=[orphaned, run(2, 20)], injections=[killed(OTHER, 9.9)]) == set()
    assert account(job=row(), runs=[orphaned, run(2, 20)], injections=[killed(OTHER, 11)]) == {TWICE}
    outage = Injection("Postgres killed", 10.05, healed_at=18)
    assert account(job=row(), runs=twice, injections=[outage, killed(WORKER, 19)]) == set()


def test_run_that_started_while_a_machine_was_being_killed_is_explained_by_it() -> None:
    def lost(done_at: float) -> Injection:
        return Injection("machine lost", 9.5, done_at=done_at, lost={WORKER}, healed_at=11)

    runs = [run(1, 10), run(2, 40)]
    assert account(job=row(), runs=runs, injections=[lost(done_at=10.05)]) == set()
    assert account(job=row(), runs=runs, injections=[lost(done_at=9.95)]) == {TWICE}


def test_stop_during_an_outage_of_postgres_explains_a_lost_attempt() -> None:
    runs, attempts = [run(1, 10), run(2, 20)], {1: ended("lost", 18)}
    stopping_worker = Injection("workers rolled", 10.05, stopping={WORKER}, healed_at=10.05)
    outage = Injection("Postgres killed", 10.05, healed_at=18)
    assert account(job=row(), runs=runs, attempts=attempts, injections=[stopping_worker, outage]) == set()
    assert account(job=row(), runs=runs, attempts=attempts, injections=[stopping_worker]) == {TWICE, WRONGLY_RECOVERED}
    later = Injection("Postgres killed", 16, healed_at=18)
    assert account(job=row(), runs=runs, attempts=attempts, injections=[stopping_worker, later]) == {
        TWICE,
        WRONGLY_RECOVERED,
    }


def test_repeated_run_of_one_start_is_reported() -> None:
    assert account(job=row(), runs=[run(1, 10, started_twice=True)], injections=[killed(WORKER, 10)]) == {TWICE}


def test_early_run_is_reported() -> None:
    assert account(job=row(run_at=12), runs=[run(1, 11)]) == {EARLY}
    assert account(job=row(run_at=12), runs=[run(1, 12)]) == set()
    assert account(job=row(), runs=[run(1, 10, "raised"), run(2, 10.2)]) == {EARLY}


def test_recovered_attempt_needs_a_fault_and_is_on_time() -> None:
    runs = [run(1, 10, None), run(2, 20)]
    injection = killed(WORKER, 10.05)
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 18)}, injections=[injection]) == set()
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 19)}, injections=[injection]) == {LATE}
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 18)}) == {TWICE, WRONGLY_RECOVERED}
    later = killed(WORKER, 18.5)
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 18)}, injections=[later]) == {WRONGLY_RECOVERED}
    outage = Injection("Postgres killed", 11, healed_at=14)
    assert account(job=row(), runs=runs, attempts={1: ended("lost", 19)}, injections=[injection, outage]) == set()
