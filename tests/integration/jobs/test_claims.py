"""Claims: a due job is dispatched once, and again if RQ has lost it."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from jobsvc import jobs
from jobsvc.states import Outcome
from tests.integration.factories import LEASE, make_due, outcome, sql, started, submit


def age(job_id: UUID, seconds: float) -> None:
    """Make the dispatch of a job so many seconds old."""
    then = "now() - :s * interval '1 s'"
    sql(f"UPDATE jobs SET dispatched_at = {then}, due_at = {then} WHERE id = :id", s=seconds, id=job_id)


def ids(claimed: list[jobs.Dispatch]) -> list[UUID]:
    return [dispatch.job_id for dispatch in claimed]


def test_due_job_is_claimed_and_a_later_one_is_not() -> None:
    submit()
    later = submit(delay=60)
    assert jobs.claim_due(10) == []
    make_due(later)
    assert ids(jobs.claim_due(10)) == [later]
    assert jobs.claim_due(10) == []


def test_failed_attempt_is_claimed_again_when_due() -> None:
    start = started(retry_intervals=[30.0, 40.0])
    jobs.finish([outcome(start, Outcome.FAILED)])
    assert jobs.claim_due(10) == []
    make_due(start.job_id)
    [dispatch] = jobs.claim_due(10)
    assert (dispatch.job_id, dispatch.retry_intervals) == (start.job_id, [40.0])


def test_undone_claim_is_due_again() -> None:
    job_id, running = submit(), started()
    jobs.release([job_id, running.job_id])
    assert ids(jobs.claim_due(10)) == [job_id]


def test_longest_due_jobs_are_claimed_first_up_to_the_limit() -> None:
    waiting = [submit(delay=60) for _ in range(4)]
    for seconds, job_id in enumerate(waiting):
        sql("UPDATE jobs SET due_at = now() - :s * interval '1 s' WHERE id = :id", s=seconds, id=job_id)
    assert ids(jobs.claim_due(3)) == waiting[:0:-1]


def test_parallel_claims_never_share_a_job() -> None:
    waiting = {submit(delay=60) for _ in range(200)}
    sql("UPDATE jobs SET due_at = now()")
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: jobs.claim_due(30), range(16)))
    claimed = [job_id for claim in claims for job_id in ids(claim)]
    assert len(claimed) == len(set(claimed)) == len(waiting)


def test_empty_queue_means_older_dispatched_jobs_are_missing() -> None:
    old, fresh, elsewhere = submit(), submit(), submit(queue="low")
    age(old, 20)
    age(elsewhere, 20)
    assert ids(jobs.claim_missing("default", None, 15, 10)) == [old]
    assert jobs.claim_missing("default", None, 15, 10) == []
    assert jobs.get(fresh).status == "PENDING"


def test_jobs_dispatched_well_before_the_head_are_missing() -> None:
    lost, on_its_way, head, behind = submit(), submit(), submit(), submit()
    for job_id, seconds in ((lost, 100), (on_its_way, 55), (head, 50), (behind, 40)):
        age(job_id, seconds)
    assert ids(jobs.claim_missing("default", head, 15, 10)) == [lost]


@pytest.mark.parametrize("what", ["unknown", "running"])
def test_head_that_is_not_waiting_proves_nothing_missing(what: str) -> None:
    age(submit(), 100)
    head = uuid4() if what == "unknown" else started().job_id
    assert jobs.claim_missing("default", head, 15, 10) == []


def test_running_and_finished_jobs_are_never_missing() -> None:
    running, done = started(), started()
    jobs.finish([outcome(done, Outcome.COMPLETED)])
    for start in (running, done):
        age(start.job_id, 1000)
    assert jobs.claim_missing("default", None, 15, 10) == []


def test_seconds_to_the_next_due_job_are_returned() -> None:
    assert jobs.seconds_to_next() is None
    submit()
    assert jobs.seconds_to_next() is None
    first = submit(delay=30)
    submit(delay=90)
    assert jobs.seconds_to_next() == pytest.approx(30, abs=2)
    make_due(first)
    assert jobs.seconds_to_next() == 0


def test_job_that_is_not_due_is_not_started() -> None:
    job_id = submit(delay=60)
    assert jobs.claim_due(10) == []
    assert jobs.start([job_id], "w", LEASE) == []


def test_sweep_queries_use_their_indexes() -> None:
    sql(
        "INSERT INTO jobs"
        " (id, type, queue, payload, status, timeout, retry_intervals, max_attempts, due_at, dispatched_at)"
        " SELECT gen_random_uuid(), 'T', 'default', '{}', 'COMPLETED', 1, '{}', 1, now(), now()"
        " FROM generate_series(1, 20000)"
    )
    submit(delay=60)
    sql("ANALYZE jobs")
    from sqlalchemy import event

    from jobsvc.db.engine import engine

    plans: list[str] = []

    def explain(connection, cursor, statement, parameters, context, many):  # type: ignore[no-untyped-def]
        if statement.lstrip().startswith(("UPDATE", "SELECT", "WITH")):
            cursor.execute("EXPLAIN " + statement, parameters)
            plans.append("\n".join(row[0] for row in cursor.fetchall()))

    event.listen(engine(), "before_cursor_execute", explain)
    try:
        jobs.claim_due(10)
        jobs.claim_missing("default", None, 15, 10)
        jobs.seconds_to_next()
        jobs.expire(10)
        jobs.recover_lapsed(10, 0)
        jobs.claim_resumed("default", 10)
        jobs.claim_next(["k"], 10)
        jobs.withheld_concurrency_keys("", 10)
        jobs.depths()
    finally:
        event.remove(engine(), "before_cursor_execute", explain)
    indexes = [
        *("jobs_to_dispatch", "jobs_in_rq", "jobs_to_dispatch", "jobs_to_expire", "jobs_running"),
        *("jobs_withheld_by_pause", "jobs_withheld_by_key", "jobs_withheld_by_key", "jobs_in_rq"),
    ]
    for plan, index in zip(plans, indexes, strict=True):
        assert index in plan
        assert "Seq Scan on jobs" not in plan
