"""The audit of `make chaos` finds broken promises about dependencies, limits, changes and SQL."""

from typing import Any

from tests.chaos.audit import Run, audit
from tests.chaos.audit_limits import find_concurrency_breaches, find_rate_breaches
from tests.chaos.load import Accepted
from tests.chaos.moves import Move
from tests.unit.test_chaos_audit import OTHERWISE, ended, row

BODY: dict[str, Any] = {"retry": {"interval": 1}}
FIRST = Accepted("a", "plain", BODY)
CANCELLED = Accepted("b", "plain", BODY, depends_on=("a",))
RUN_ANYWAY = Accepted("b", "plain", BODY | {"onDependencyFailure": "run"}, depends_on=("a",))
UNORDERED, TWICE = "ran before its dependencies ended", "released more than once"
UNCHANGED, UNCOMMITTED = "ran as before its change", "stored although rolled back"


def run(job_id: str, started_at: float, fence: int = 1, **more: Any) -> Run:
    return Run(job_id, fence, started_at, [101, 7], started_at + 0.1, "returned", **more)


def broken(
    accepted: list[Accepted],
    jobs: dict[str, Any],
    runs: list[Run],
    attempts: dict[str, Any] | None = None,
    **more: Any,
) -> set[str]:
    journal = {one.job_id: [each for each in runs if each.job_id == one.job_id] for one in accepted}
    attempts = {"a": {}, "b": {}} | (attempts or {})
    return set(audit(accepted, jobs, attempts, journal, [], 8.5, **more).broken)


def test_dependent_runs_after_its_dependency() -> None:
    jobs = {"a": row(finished_at=11), "b": row(finished_at=13)}
    assert broken([FIRST, CANCELLED], jobs, [run("a", 10), run("b", 12)]) == set()
    assert broken([FIRST, CANCELLED], jobs, [run("a", 10), run("b", 10.5)]) == {UNORDERED}


def test_failed_dependency_cancels_its_dependent() -> None:
    first = Accepted("a", "failing", BODY)
    failed = row("FAILED", finished_at=11)
    cancelled = row("CANCELLED", error_type="DependencyFailed")
    assert broken([first, CANCELLED], {"a": failed, "b": cancelled}, []) == set()
    assert broken([first, CANCELLED], {"a": failed, "b": cancelled}, [run("b", 12)]) == {OTHERWISE}
    assert broken([first, CANCELLED], {"a": failed, "b": row("CANCELLED")}, []) == {OTHERWISE}
    assert broken([first, CANCELLED], {"a": failed, "b": row()}, [run("b", 12)]) == {OTHERWISE}
    assert broken([first, RUN_ANYWAY], {"a": failed, "b": cancelled}, []) == {OTHERWISE}
    assert broken([first, RUN_ANYWAY], {"a": failed, "b": row()}, [run("b", 12)]) == set()


def test_dependent_of_a_completed_job_is_not_cancelled() -> None:
    cancelled = row("CANCELLED", error_type="DependencyFailed")
    assert broken([FIRST, CANCELLED], {"a": row(finished_at=11), "b": cancelled}, [run("a", 10)]) == {OTHERWISE}


def test_blocked_job_is_lost() -> None:
    jobs = {"a": row(finished_at=11), "b": row("BLOCKED")}
    assert broken([FIRST, CANCELLED], jobs, [run("a", 10)]) == {"lost"}


def test_second_release_is_reported() -> None:
    release = Move("b", "BLOCKED", "PENDING", 12)
    jobs = {"a": row(finished_at=11), "b": row(finished_at=13)}
    runs = [run("a", 10), run("b", 12)]
    assert broken([FIRST, CANCELLED], jobs, runs, moves=[release]) == set()
    assert broken([FIRST, CANCELLED], jobs, runs, moves=[release, release]) == {TWICE}


def test_job_that_was_rolled_back_must_not_exist() -> None:
    jobs = {"a": row(), "b": row("PENDING")}
    assert broken([FIRST], jobs, [run("a", 10)], rolled_back=["c"]) == set()
    assert broken([FIRST], jobs, [run("a", 10)], rolled_back=["b"]) == {UNCOMMITTED}


def test_changed_job_runs_as_changed() -> None:
    changed = Accepted("a", "changed", BODY, changed_at=20, mark=2)
    jobs = {"a": row(run_at=30)}
    assert broken([changed], jobs, [run("a", 21, mark=2)]) == set()
    assert broken([changed], jobs, [run("a", 21, mark=1)]) == {UNCHANGED}
    before = [run("a", 19, mark=1), run("a", 21, fence=2, mark=2)]
    assert broken([changed], jobs, before, {"a": {1: ended("handed-back", 19.5)}}) == set()
    frozen = [run("a", 25, mark=1), run("a", 26, fence=2, mark=2)]
    assert broken([changed], jobs, frozen, {"a": {1: ended("handed-back", 19.5)}}) == set()
    assert broken([changed], jobs, frozen, {"a": {1: ended("handed-back", 20.5)}}) == {UNCHANGED}


def start(job_id: str, at: float, limit: int = 2) -> Move:
    return Move(job_id, "PENDING", "PROCESSING", at, rate_key="k", rate_limit=limit, rate_per=1)


def test_start_beyond_a_rate_limit_is_reported() -> None:
    assert find_rate_breaches([start("a", 10), start("b", 10.5), start("c", 11)]) == []
    assert find_rate_breaches([start("a", 10), start("b", 10.5), start("c", 10.9)]) == ["c"]
    assert find_rate_breaches([start("a", 10), start("a", 10.5, limit=1)]) == ["a"]
    assert find_rate_breaches([start("a", 10, limit=5), start("b", 10.2, limit=5), start("c", 10.5)]) == ["c"]


def test_start_beyond_a_concurrency_limit_is_reported() -> None:
    def move(job_id: str, before: str, after: str, at: float) -> Move:
        return Move(job_id, before, after, at, concurrency_key="k", concurrency_limit=1)

    first, end = move("a", "PENDING", "PROCESSING", 10), move("a", "PROCESSING", "RETRYING", 11)
    again = move("a", "RETRYING", "PROCESSING", 12)
    assert find_concurrency_breaches([first, end, move("b", "PENDING", "PROCESSING", 11)]) == []
    assert find_concurrency_breaches([first, end, move("b", "PENDING", "PROCESSING", 10.5)]) == ["b"]
    assert find_concurrency_breaches([first, end, again, move("b", "PENDING", "PROCESSING", 13)]) == ["b"]
