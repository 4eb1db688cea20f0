"""Retention: finished jobs are deleted from Postgres in bounded passes."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.db.engine import engine
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.duties import PRUNE_SECONDS, Duties
from jobsvc.states import ENDED, Status
from tests.integration.factories import sql, submit

DAY = 86400.0

# An id of that age, as the API would have made it then.
MAKE = """
WITH made AS (
    SELECT (lpad(to_hex((extract(epoch FROM now() - :made * interval '1 day') * 1000)::bigint + n), 12, '0')
           || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id
    FROM generate_series(1, :count) n
)
INSERT INTO jobs (id, type, queue, payload, status, timeout, retry_intervals, max_attempts, due_at, finished_at)
SELECT id, 'TEST_JOB', 'default', '{}', :status, 180, '{}', 1, now(), now() - :ended * interval '1 day' FROM made
RETURNING id
"""


def make(made: float, ended: float | None = None, status: Status = Status.COMPLETED, count: int = 1) -> set[str]:
    """Jobs that were made and ended so many days ago; returns their ids."""
    return {str(row.id) for row in sql(MAKE, made=made, ended=ended, status=status, count=count)}


def left() -> set[str]:
    return {str(row.id) for row in sql("SELECT id FROM jobs")}


def prune(limit: int = 1000) -> int:
    """Prune until nothing is left to prune; returns how many went."""
    pruned, total = jobs.prune(30 * DAY, limit), 0
    while pruned.reached != jobs.LOWEST:
        total += len(pruned.job_ids)
        pruned = jobs.prune(30 * DAY, limit, pruned.reached)
    return total + len(pruned.job_ids)


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = settings().model_copy(update={"JOBSVC_RETENTION_DAYS": 0})
    monkeypatch.setattr("jobsvc.dispatch.duties.settings", lambda: kept)


@pytest.fixture
def small_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobsvc.dispatch.duties.BATCH", 10)


@pytest.mark.parametrize("status", ENDED)
def test_old_finished_jobs_are_deleted_with_their_attempts(status: Status) -> None:
    [old] = make(40, 31, status)
    sql("INSERT INTO attempts (job_id, fence, number, started_at, outcome) VALUES (:id, 1, 1, now(), 'failed')", id=old)
    assert [str(job_id) for job_id in jobs.prune(30 * DAY, 1000).job_ids] == [old]
    assert left() == set()
    assert sql("SELECT * FROM attempts") == []


def test_recently_finished_jobs_stay_however_old() -> None:
    young = make(40, 29) | make(1, 1) | {str(submit())}
    assert prune() == 0
    assert left() == young


@pytest.mark.parametrize("status", sorted(set(Status) - set(ENDED)))
def test_unfinished_jobs_stay_however_old(status: Status) -> None:
    unfinished = make(400, None, status) | make(399, 398, status)
    assert prune() == 0
    assert left() == unfinished


def test_pass_deletes_its_limit_at_most() -> None:
    make(40, 40, count=25)
    first = jobs.prune(30 * DAY, 10)
    second = jobs.prune(30 * DAY, 10, first.reached)
    third = jobs.prune(30 * DAY, 10, second.reached)
    assert [len(one.job_ids) for one in (first, second, third)] == [10, 10, 5]
    assert third.reached == jobs.LOWEST
    assert left() == set()


def test_pass_reads_ten_times_its_limit_at_most() -> None:
    waiting = make(400, None, Status.SCHEDULED, count=150)
    make(40, 40, count=3)
    first = jobs.prune(30 * DAY, 10)
    assert first.job_ids == []
    assert str(first.reached) == sorted(waiting)[99]
    second = jobs.prune(30 * DAY, 10, first.reached)
    assert (len(second.job_ids), second.reached) == (3, jobs.LOWEST)
    assert left() == waiting


def test_job_that_is_being_retried_is_skipped() -> None:
    [retried] = make(40, 40, Status.FAILED)
    with ThreadPoolExecutor(1) as pool, engine().begin() as connection:
        connection.execute(text("UPDATE jobs SET status = 'PENDING', finished_at = NULL"))
        assert pool.submit(jobs.prune, 30 * DAY, 10).result(timeout=10).job_ids == []
    assert jobs.prune(30 * DAY, 10).job_ids == []
    assert left() == {retried}


def test_concurrent_passes_share_the_work() -> None:
    make(40, 40, count=3000)
    young = make(40, 29, Status.FAILED, count=500)
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: prune(limit=100), range(4)))
    assert sum(counts) == 3000
    assert left() == young


def test_relay_prunes_postgres_and_redis() -> None:
    [old] = make(40, 31)
    redis = rq_redis.connection()
    redis.hset(f"rq:job:{old}", "status", "queued")
    redis.xadd(f"rq:results:{old}", {"type": 1})
    redis.zadd("rq:failed:jobsvc.default", {old: 1})
    duties = Duties()
    assert duties.prune() == PRUNE_SECONDS
    assert left() == set()
    assert set(redis.keys("rq:*")) <= {b"rq:jobsvc:jobsvc:owner"}


def test_relay_prunes_once_a_minute_and_continues_where_it_stopped(small_batch: None) -> None:
    waiting = make(400, None, Status.SCHEDULED, count=150)
    make(40, 31)
    duties = Duties()
    assert duties.prune() == PRUNE_SECONDS
    assert len(left()) == 151
    assert duties.prune() == PRUNE_SECONDS
    assert left() == waiting


def test_backlog_is_pruned_without_pauses(small_batch: None) -> None:
    make(40, 31, count=25)
    duties = Duties()
    assert [duties.prune() for _ in range(3)] == [0, 0, PRUNE_SECONDS]
    assert left() == set()


def test_retention_of_zero_days_keeps_all_jobs(for_ever: None) -> None:
    old = make(4000, 4000)
    assert Duties().prune() == math.inf
    assert left() == old


def test_ids_rise_in_order_of_creation() -> None:
    """The passes over the primary key rely on this."""
    [before], [after] = make(0.001), make(-0.001)
    assert before < str(submit()) < after
