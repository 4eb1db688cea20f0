"""The state machine on a real Postgres: moves, fences, counts, and races with one side holding the row."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db.engine import engine, transaction
from jobsvc.errors import JobNotFound
from jobsvc.jobs.submit import store
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, lapse, make_due, new, outcome, sql, started, submit
from tests.integration.locking import TAKE, behind_the_lock, in_parallel, waits_for_a_lock
from tests.support.service import eventually


def test_one_statement_stores_jobs_in_order() -> None:
    asked = [new(payload={"n": n}) for n in range(500)]
    stored = jobs.submit(asked)
    assert [jobs.get(job.job_id).payload["n"] for job in stored[::100]] == [0, 100, 200, 300, 400]
    assert sorted(stored, key=lambda job: job.job_id) == stored  # ids grow with time


def test_only_due_jobs_are_dispatched_at_once() -> None:
    now, later, at = submit(), submit(delay=60), submit(run_at=datetime.now(UTC) + timedelta(hours=1))
    assert jobs.get(now).status == Status.PENDING
    assert jobs.get(now).dispatched_at == jobs.get(now).due_at
    assert jobs.get(now).run_at is None
    for waiting in (later, at):
        assert jobs.get(waiting).status == Status.SCHEDULED
        assert jobs.get(waiting).dispatched_at is None
    assert jobs.start([later, at], "w", LEASE) == []


def test_run_at_in_the_past_counts_as_due() -> None:
    job = jobs.get(submit(run_at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert job.status == Status.PENDING
    assert job.dispatched_at is not None
    assert job.dispatched_at >= job.due_at


def test_unknown_jobs_are_not_found() -> None:
    with pytest.raises(JobNotFound):
        jobs.get(uuid4())
    with pytest.raises(JobNotFound):
        jobs.history(uuid4())
    assert jobs.start([uuid4()], "w", LEASE) == []


def test_start_takes_a_list_and_raises_each_fence() -> None:
    ids = [submit() for _ in range(3)]
    first = jobs.start(ids, "w", LEASE)
    assert {one.job_id for one in first} == set(ids)
    assert {(one.attempt, one.max_attempts, one.fence) for one in first} == {(1, 4, 1)}
    assert jobs.start(ids, "w", LEASE) == []


def test_finish_takes_a_list_of_all_kinds() -> None:
    endings = [Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMEOUT, Outcome.DISCARDED, Outcome.SNOOZED, Outcome.LOST]
    attempts_started = [started() for _ in endings]
    more: list[dict[str, Any]] = [{"result": {"a": 1}}, {}, {}, {}, {"delay": 9}, {}]
    transitions = jobs.finish([outcome(s, e, **m) for s, e, m in zip(attempts_started, endings, more, strict=True)])
    statuses = {transition.job_id: transition.status for transition in transitions}
    assert [statuses[s.job_id] for s in attempts_started] == [
        *(Status.COMPLETED, Status.RETRYING, Status.RETRYING, Status.FAILED, Status.SCHEDULED, Status.RETRYING),
    ]
    done, attempts, _ = jobs.history(attempts_started[0].job_id)
    assert (done.result, attempts, done.lease_expires_at) == ({"a": 1}, [], None)
    for start, ending in list(zip(attempts_started, endings, strict=True))[1:]:
        _, [attempt], _ = jobs.history(start.job_id)
        assert (attempt.outcome, attempt.number, attempt.worker) == (ending, 1, "worker")
    snoozed = jobs.get(attempts_started[4].job_id)
    assert (snoozed.attempts, snoozed.fence) == (0, 1)
    assert (snoozed.due_at - datetime.now(UTC)).total_seconds() == pytest.approx(9, abs=2)


def test_failures_wait_their_intervals_and_the_last_is_final() -> None:
    job_id = submit(retry_intervals=[10.0, 20.0])
    waits, left = [], []
    for _ in range(3):
        make_due(job_id)
        [start] = jobs.start([job_id], "w", LEASE)
        [transition] = jobs.finish([outcome(start, Outcome.FAILED)])
        waits.append(round((transition.due_at - datetime.now(UTC)).total_seconds()))
        left.append((transition.status, transition.intervals_left))
    assert waits[:2] == [10, 20]
    assert left == [(Status.RETRYING, [10.0, 20.0]), (Status.RETRYING, [20.0]), (Status.FAILED, [])]
    job, attempts, _ = jobs.history(job_id)
    assert [attempt.number for attempt in attempts] == [1, 2, 3]
    assert job.error == {"type": "ValueError", "message": "no", "attempt": 3}
    assert job.finished_at is not None


def test_explicit_delay_replaces_the_interval() -> None:
    start = started()
    [transition] = jobs.finish([outcome(start, Outcome.FAILED, delay=100)])
    assert (transition.due_at - datetime.now(UTC)).total_seconds() == pytest.approx(100, abs=2)


def test_success_keeps_the_last_error() -> None:
    start = started()
    jobs.finish([outcome(start, Outcome.FAILED)])
    make_due(start.job_id)
    [again] = jobs.start([start.job_id], "w", LEASE)
    jobs.finish([outcome(again, Outcome.COMPLETED)])
    assert jobs.get(start.job_id).error == {"type": "ValueError", "message": "no", "attempt": 1}


def test_retry_does_not_start_before_its_time() -> None:
    start = started()
    jobs.finish([outcome(start, Outcome.FAILED)])
    assert jobs.start([start.job_id], "w", LEASE) == []


@pytest.mark.parametrize("ending", list(Outcome))
def test_late_result_changes_nothing(ending: Outcome) -> None:
    """The worker was frozen, the job taken over: what it brings now is not stored."""
    old = started(retry_intervals=[0.0])
    lapse(old.job_id)
    assert jobs.recover_lapsed(10, 0) == 1
    [new_start] = jobs.start([old.job_id], "other", LEASE)
    before = jobs.history(old.job_id)
    assert new_start.fence == old.fence + 1
    assert jobs.finish([outcome(old, ending)]) == []
    assert jobs.renew([old], LEASE) == set()
    assert jobs.report([(old, {"percent": 99, "message": None})]) == set()
    after = jobs.history(old.job_id)
    assert [(j.status, j.fence, j.worker, j.progress, len(a)) for j, a, _ in (before, after)] == [
        (Status.PROCESSING, 2, "other", None, 1)
    ] * 2
    assert [v.status for v in jobs.finish([outcome(new_start, Outcome.COMPLETED)])] == [Status.COMPLETED]


def test_repeated_result_counts_once() -> None:
    start = started()
    assert jobs.finish([outcome(start, Outcome.COMPLETED, result=1)])
    assert jobs.finish([outcome(start, Outcome.COMPLETED, result=2)]) == []
    assert jobs.get(start.job_id).result == 1


def test_only_lapsed_leases_are_recovered() -> None:
    start, lapsed = started(), started()
    lapse(lapsed.job_id)
    assert jobs.renew([start], 60) == {start.job_id}
    assert jobs.recover_lapsed(10, 0) == 1
    assert jobs.get(start.job_id).status == Status.PROCESSING
    job, [attempt], _ = jobs.history(lapsed.job_id)
    assert (job.status, attempt.outcome, attempt.error_type) == (Status.RETRYING, Outcome.LOST, "WorkerLost")


def test_leases_are_spared_right_after_an_outage() -> None:
    """After an outage, workers need the time of one lease to renew."""
    start = started()
    lapse(start.job_id)
    longer_than_it_is_up = 10.0**9
    assert jobs.recover_lapsed(10, longer_than_it_is_up) == 0
    assert jobs.recover_lapsed(10, 0) == 1


def test_lost_last_attempt_fails_the_job() -> None:
    start = started(retry_intervals=[])
    lapse(start.job_id)
    jobs.recover_lapsed(10, 0)
    job = jobs.get(start.job_id)
    assert job.status == Status.FAILED
    assert job.error is not None
    assert job.error["type"] == "WorkerLost"


def test_unstarted_job_expires_on_time() -> None:
    late, in_time, running = submit(expires_in=0.001), submit(expires_in=60), started(expires_in=60)
    sql("UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = :id", id=running.job_id)
    sql("SELECT pg_sleep(0.01)")
    assert jobs.start([late], "w", LEASE) == []
    assert jobs.expire(10) == 1
    assert jobs.get(late).status == Status.FAILED
    assert jobs.get(in_time).status == Status.PENDING
    assert jobs.get(running.job_id).status == Status.PROCESSING


@pytest.mark.parametrize("duty", [jobs.expire, lambda limit: jobs.recover_lapsed(limit, 0)])
def test_sweeps_are_bounded(duty: Callable[[int], int]) -> None:
    attempts_started = [started(expires_in=60) for _ in range(3)]
    waiting = [submit(expires_in=60) for _ in range(3)]
    for job_id in [*waiting, *(start.job_id for start in attempts_started)]:
        sql("UPDATE jobs SET expires_at = now(), lease_expires_at = now() - interval '1 s' WHERE id = :id", id=job_id)
    assert [duty(2), duty(2), duty(2)] == [2, 1, 0]


def test_fifteen_concurrent_starts_make_one() -> None:
    job_id = submit()
    assert (
        sum(len(attempts_started) for attempts_started in in_parallel(15, lambda: jobs.start([job_id], "w", LEASE)))
        == 1
    )
    assert jobs.get(job_id).attempts == 1


def test_fifteen_concurrent_sweeps_recover_each_job_once() -> None:
    attempts_started = [started() for _ in range(20)]
    for start in attempts_started:
        lapse(start.job_id)
    assert sum(in_parallel(15, lambda: jobs.recover_lapsed(1000, 0))) == 20
    assert all(jobs.get(start.job_id).attempts == 1 for start in attempts_started)


def test_second_start_waits_for_the_first_and_is_refused() -> None:
    job_id = submit()
    assert behind_the_lock(TAKE, lambda: jobs.start([job_id], "w", LEASE), id=job_id) == []


def test_finish_after_a_recovery_changes_nothing() -> None:
    start = started()
    take_over = "UPDATE jobs SET fence = fence + 1, worker = 'other' WHERE id = :id"
    assert behind_the_lock(take_over, lambda: jobs.finish([outcome(start, Outcome.COMPLETED)]), id=start.job_id) == []
    assert jobs.get(start.job_id).status == Status.PROCESSING


def test_recover_skips_a_row_that_is_being_finished() -> None:
    """The other direction: the finish holds the row, so the sweep does not wait, and does not take it."""
    start = started()
    lapse(start.job_id)
    with engine().begin() as holder:
        holder.execute(text("UPDATE jobs SET status = 'COMPLETED' WHERE id = :id"), {"id": start.job_id})
        assert jobs.recover_lapsed(10, 0) == 0
    assert jobs.recover_lapsed(10, 0) == 0
    assert jobs.get(start.job_id).status == Status.COMPLETED


def test_renew_after_a_recovery_reports_a_lost_lease() -> None:
    start = started()
    lose = "UPDATE jobs SET status = 'RETRYING', lease_expires_at = NULL WHERE id = :id"
    assert behind_the_lock(lose, lambda: jobs.renew([start], LEASE), id=start.job_id) == set()


def test_expire_skips_a_row_that_is_being_started() -> None:
    job_id = submit(expires_in=60)
    sql("UPDATE jobs SET expires_at = now() WHERE id = :id", id=job_id)
    with engine().begin() as holder:
        holder.execute(text(TAKE), {"id": job_id})
        assert jobs.expire(10) == 0
    assert jobs.expire(10) == 0
    assert jobs.get(job_id).status == Status.PROCESSING


def test_unique_key_is_taken_while_its_job_is_unfinished() -> None:
    [first] = jobs.submit([new(unique_key="k")])
    [same, other_type, other_key] = jobs.submit(
        [new(unique_key="k"), new(unique_key="k", type="OTHER"), new(unique_key="l")]
    )
    assert (same.job_id, same.dispatch) == (first.job_id, None)
    assert len({first.job_id, other_type.job_id, other_key.job_id}) == 3
    [start] = jobs.start([first.job_id], "worker", LEASE)
    assert jobs.submit([new(unique_key="k")])[0].job_id == first.job_id
    jobs.finish([outcome(start, Outcome.COMPLETED)])
    assert jobs.submit([new(unique_key="k")])[0].job_id != first.job_id


def test_repeated_unique_key_in_a_batch_makes_one_job() -> None:
    [a, plain, b] = jobs.submit([new(unique_key="k"), new(), new(unique_key="k")])
    assert a.job_id == b.job_id
    assert b.dispatch is None
    assert plain.dispatch
    assert sql("SELECT count(*) FROM jobs") == [(2,)]


def test_batches_with_the_same_unique_keys_do_not_deadlock() -> None:
    """One waits for the other's first key, while it holds none that the other wants yet."""
    with ThreadPoolExecutor(1) as pool, transaction() as holder:
        first = store(holder, [new(unique_key="a")])
        answer = pool.submit(jobs.submit, [new(unique_key="b"), new(unique_key="a")])
        eventually(waits_for_a_lock)
        first += store(holder, [new(unique_key="b")])
        holder.commit()
        assert [one.job_id for one in answer.result()] == [one.job_id for one in reversed(first)]


def test_fifty_concurrent_submissions_with_one_unique_key_make_one_job() -> None:
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda _: jobs.submit([new(unique_key="k")])[0], range(50)))
    assert len({one.job_id for one in made}) == 1
    assert sum(one.dispatch is not None for one in made) == 1
