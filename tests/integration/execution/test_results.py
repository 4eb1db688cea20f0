"""Results of attempts, of which Postgres rejects one: by a trigger, here."""

import logging
from collections.abc import Iterator

import pytest

from jobsvc import jobs
from jobsvc.execution.results import log_results, store_results
from jobsvc.jobs import completed
from jobsvc.states import Outcome, Status
from tests.integration.factories import outcome, sql, started

REJECT = """
CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION USING ERRCODE = ''22000''; END';
CREATE TRIGGER reject BEFORE UPDATE ON jobs FOR EACH ROW WHEN ({}) EXECUTE FUNCTION reject()
"""


@pytest.fixture
def rejecting(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let Postgres reject each update of a job for which this SQL condition is true."""
    sql(REJECT.format(request.param))
    yield
    sql("DROP FUNCTION reject CASCADE")


@pytest.mark.parametrize("rejecting", ["NEW.result = '1'"], indirect=True)
@pytest.mark.usefixtures("rejecting")
def test_rejected_result_becomes_a_failure_and_costs_no_other_result() -> None:
    attempts = [started(retry_intervals=[]) for _ in range(3)]
    results = [completed(one.job_id, one.fence, number) for number, one in enumerate(attempts)]
    stored = store_results(results)
    assert [transition and transition.status for _, transition in stored] == [
        Status.COMPLETED,
        Status.FAILED,
        Status.COMPLETED,
    ]
    assert [stored[0][0], stored[2][0]] == [results[0], results[2]]
    failure = stored[1][0].failure
    assert failure
    assert failure.type == "UnserializableResult"


@pytest.mark.parametrize("rejecting", ["NEW.type = 'BAD' AND NEW.status <> 'PROCESSING'"], indirect=True)
@pytest.mark.usefixtures("rejecting")
def test_result_whose_failure_is_rejected_too_is_dropped_alone() -> None:
    attempts = [started(type=type_) for type_ in ("GOOD", "BAD", "GOOD")]
    stored = store_results([completed(one.job_id, one.fence) for one in attempts])
    assert [transition is not None for _, transition in stored] == [True, False, True]
    job = jobs.get(attempts[1].job_id)
    assert job
    assert job.status == Status.PROCESSING


def test_result_without_a_lease_has_no_transition() -> None:
    lost, kept = started(), started()
    jobs.finish([completed(lost.job_id, lost.fence)])
    stored = store_results([outcome(lost, Outcome.FAILED), outcome(kept, Outcome.FAILED)])
    assert [transition and transition.status for _, transition in stored] == [None, Status.RETRYING]


def test_many_completed_jobs_share_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    attempts = [started() for _ in range(11)]
    results = [completed(one.job_id, one.fence) for one in attempts[:-1]] + [outcome(attempts[-1], Outcome.FAILED)]
    with caplog.at_level(logging.INFO, "jobsvc.worker"):
        stored = store_results(results)
        log_results([(one, *pair) for one, pair in zip(attempts, stored, strict=True)])
    failed, completed_line = [record.getMessage() for record in caplog.records]
    assert f"{attempts[-1].job_id} attempt 1 of 4 failed, again at" in failed
    assert completed_line == "completed 10 of TEST_JOB"
