"""The results of dependencies, as a handler reads them, and the connection with which it does."""

from typing import Any

import pytest

from jobsvc import Context, handler, jobs
from jobsvc.db import engine
from jobsvc.execution.attempt import attempt
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline
from jobsvc.execution.dependencies import Dependencies
from jobsvc.handlers import registry
from jobsvc.jobs import completed
from jobsvc.states import Outcome
from tests.integration.factories import outcome, started, submit


def test_completed_dependencies_are_read_one_by_one() -> None:
    first, second = started(), started()
    jobs.finish([completed(first.job_id, first.fence, {"a": 1}), outcome(second, Outcome.DISCARDED)])
    third = submit(depends_on=[first.job_id, second.job_id], on_dependency_failure="run")
    found = Dependencies(str(third))
    assert dict(found) == {str(first.job_id): {"a": 1}}
    assert len(found) == 1
    assert found[str(first.job_id).upper()] == {"a": 1}
    for wrong in (str(second.job_id), str(third), "x", ""):
        with pytest.raises(KeyError):
            found[wrong]


def connections() -> int:
    """Return the number of this process' open connections to Postgres."""
    return sum(not one.closed for one in engine._connections)


def read_results(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return dict(ctx.dependencies)


@pytest.mark.parametrize("reads", [True, False])
def test_attempt_that_read_results_closes_its_connection(reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_handlers", dict(registry._handlers))
    if reads:
        handler("READ_RESULTS")(read_results)
    start = started(type="READ_RESULTS" if reads else "TEST_JOB")
    before = connections()
    assert before > 0
    result = attempt(start, Deadline(start, lambda: None), AttemptLog())
    assert (result.outcome, result.result) == (Outcome.COMPLETED, {} if reads else None)
    assert connections() == before - reads
