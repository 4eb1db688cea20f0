"""What Postgres shows of a waiting job: its place, its queue, its key, and the jobs before it."""

from uuid import UUID

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db.engine import statement, transaction
from jobsvc.errors import JobNotFound
from jobsvc.jobs import situation
from jobsvc.jobs.situation import MOST_BEFORE, Place, Situation
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, make_due, outcome, sql, started, submit
from tests.integration.jobs.test_queries import Explain

QUEUES = ("high", "default", "low")


def read(job_id: UUID) -> Situation:
    return jobs.read_situation(job_id, QUEUES)


def test_jobs_before_are_those_dispatched_earlier_and_of_other_queues() -> None:
    first, second = submit(), submit()
    for queue in ("high", "low", "low", "elsewhere"):
        submit(queue=queue)
    submit(delay=60)
    assert (read(first).before, read(second).before) == (0, 1)
    assert read(second).place is Place.IN_RQ
    assert read(second).in_rq == {"high": 1, "low": 2}
    jobs.pause("high")
    assert read(second).in_rq == {"low": 2}


def test_job_that_is_not_dispatched_comes_after_those_in_rq() -> None:
    submit()
    sql("UPDATE jobs SET due_at = due_at - interval '1 min'")
    earlier, job_id = submit(), submit()
    jobs.release([earlier, job_id])
    found = read(job_id)
    assert (found.place, found.before, found.is_due) == (Place.NOT_DISPATCHED, 2, True)


def test_job_that_is_due_later_has_none_before_it() -> None:
    submit()
    found = read(submit(delay=60))
    assert (found.place, found.before, found.in_rq, found.is_due) == (Place.NOT_DISPATCHED, 0, {}, False)


def test_full_key_shows_its_running_jobs_and_the_withheld_ones_before() -> None:
    keyed = {"concurrency_key": "k", "concurrency_limit": 1}
    runs, _, waits = submit(**keyed), submit(**keyed), submit(**keyed)
    jobs.claim_due(10)
    [_] = jobs.start([runs], "worker", LEASE)
    found = read(waits)
    assert (found.place, found.slots, found.running, found.before) == (Place.WITHHELD, 1, [runs], 1)
    assert (found.concurrency_key, found.concurrency_limit) == ("k", 1)


def test_slots_are_those_of_other_jobs_that_can_start() -> None:
    keyed = {"concurrency_key": "k", "concurrency_limit": 3}
    job_id, _, other, withheld = submit(**keyed), submit(**keyed), submit(**keyed, queue="low"), submit(**keyed)
    jobs.claim_due(10)
    jobs.pause("low")
    found = read(job_id)
    assert (found.place, found.slots, found.running) == (Place.IN_RQ, 1, [])
    assert jobs.start([other], "worker", LEASE) == []
    assert (read(other).place, read(withheld).place, read(withheld).before) == (Place.WITHHELD, Place.WITHHELD, 0)


def test_job_of_paused_queue_is_withheld() -> None:
    jobs.pause("low")
    submit(queue="low")
    job_id = submit(queue="low")
    jobs.claim_due(10)
    found = read(job_id)
    assert (found.place, found.before) == (Place.WITHHELD, 1)
    assert found.queue_paused_at
    assert found.queue_paused_at <= found.now


def test_refused_job_awaits_a_handler_with_those_of_its_type() -> None:
    ids = [submit(type="STRANGE"), submit(type="STRANGE"), submit(type="OTHER")]
    assert jobs.start(ids, "worker", LEASE, ["TEST_JOB"]) == []
    assert [read(job_id).place for job_id in ids] == [Place.AWAITS_HANDLER] * 3
    assert [read(job_id).before for job_id in ids] == [0, 1, 0]


def test_running_and_ended_jobs_have_no_place() -> None:
    start = started(retry_intervals=[])
    found = read(start.job_id)
    assert (found.place, found.status, found.worker, found.last_outcome) == (None, Status.PROCESSING, "worker", None)
    jobs.finish([outcome(start, Outcome.DISCARDED)])
    found = read(start.job_id)
    assert (found.status, found.error_type, found.last_outcome) == (Status.FAILED, "ValueError", Outcome.DISCARDED)


def test_job_that_started_in_time_does_not_expire() -> None:
    late, early = submit(expires_in=0.001), started()
    jobs.finish([outcome(early, Outcome.SNOOZED, delay=0)])
    sql("UPDATE jobs SET expires_at = now() - interval '1 s'")
    assert (read(late).is_expired, read(early.job_id).is_expired) == (True, False)


def test_unknown_job_is_not_found() -> None:
    with pytest.raises(JobNotFound):
        read(UUID(int=1))


ROWS = 120_000
FILL = text(
    """
    INSERT INTO jobs (id, type, queue, payload, status, timeout, retry_intervals, max_attempts, due_at, dispatched_at)
    SELECT gen_random_uuid(), 'TEST_JOB', CASE WHEN n % 2 = 0 THEN 'default' ELSE 'high' END, '{}', :status, 180, '{}',
        1, t, CASE :place WHEN 'in RQ' THEN t WHEN 'withheld' THEN 'infinity'
            WHEN 'awaits handler' THEN '9999-12-31 00:00:00+00'::timestamptz END
    FROM (SELECT n, now() - interval '1 day' + n * interval '1 ms' AS t FROM generate_series(1, :rows) AS n) AS g
    """
)


def rows_read(job_id: UUID) -> int:
    """Return how many rows Postgres read to describe this job."""
    asked = {"id": job_id, "queues": list(QUEUES), "most": MOST_BEFORE}
    with transaction() as connection:
        connection.execute(situation.read_in_index_order)
        [top] = connection.scalar(Explain(situation._read), asked)  # type: ignore[arg-type]

    def read_by(plan: dict[str, float]) -> float:
        below = plan.get("Plans", [])
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
        return (0 if below else own) + sum(map(read_by, below))  # type: ignore[arg-type, call-overload]

    return int(read_by(top["Plan"]))


@pytest.mark.parametrize("is_analyzed", [True, False])
@pytest.mark.parametrize("place", list(Place))
def test_count_of_jobs_before_is_bounded(place: Place, is_analyzed: bool) -> None:
    """Also if the statistics of Postgres are old."""
    with transaction() as connection:
        connection.execute(FILL, {"rows": ROWS, "status": "PENDING", "place": place.value})
    job_id = submit()
    if place is not Place.IN_RQ:
        mark = {Place.WITHHELD: "'infinity'", Place.AWAITS_HANDLER: "'9999-12-31 00:00:00+00'"}.get(place, "NULL")
        sql(f"UPDATE jobs SET dispatched_at = {mark} WHERE id = :id", id=job_id)
        make_due(job_id)
    if is_analyzed:
        with statement() as connection:
            connection.execute(text("ANALYZE jobs"))
    found = read(job_id)
    assert (found.place, found.before) == (place, MOST_BEFORE)
    assert found.in_rq == ({"high": MOST_BEFORE} if place is Place.IN_RQ else {})
    assert rows_read(job_id) < 3 * MOST_BEFORE
