"""Jobs whose type a worker does not know: it starts none of them, and they wait in Postgres for one that does.

The class: a start by a worker without the type, for each way in which the job was dispatched: new, due later,
to be retried, retried by hand, a webhook's delivery, with a concurrency key, in a paused queue, in a batch with others.
"""

from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.execution.attempt import attempt
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline
from jobsvc.jobs import unknown_types
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, make_due, outcome, sql, started, submit

OLD = frozenset({"TEST_JOB", "WEBHOOK"})
NEW = OLD | {"NEW"}
QUEUES = ("high", "default", "low")


def start(*job_ids: UUID, types: frozenset[str] = OLD) -> list[UUID]:
    return [one.job_id for one in jobs.start(job_ids, "worker", LEASE, types)]


def awaiting() -> set[UUID]:
    return {row.id for row in sql("SELECT id FROM jobs WHERE dispatched_at = '9999-12-31 00:00:00+00'")}


def dispatched() -> set[UUID]:
    """Return all jobs that a sweep dispatches, of any kind."""
    sql("SELECT pg_sleep(0.01)")
    claims = [*jobs.claim_due(10), *jobs.claim_next(jobs.withheld_concurrency_keys("", 10), 10)]
    for queue in QUEUES:
        claims += [*jobs.claim_resumed(queue, 10), *jobs.claim_missing(queue, None, 0, 10)]
    return {one.job_id for one in claims}


def test_other_jobs_of_the_batch_start_at_once() -> None:
    ids = [submit(type="NEW"), submit(), submit(type="NEW"), submit()]
    assert sorted(start(*ids)) == sorted(ids[1::2])
    assert awaiting() == set(ids[::2])
    for job_id in ids[::2]:
        job, attempts, _ = jobs.history(job_id)
        assert (job.status, job.attempts, job.fence, job.version, attempts) == (Status.PENDING, 0, 0, 0, [])


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.RETRYING])
def test_unknown_job_keeps_its_status(status: Status) -> None:
    if status == Status.SCHEDULED:
        job_id = submit(type="NEW", delay=60)
    else:
        job_id = (started_attempt := started(type="NEW")).job_id
        jobs.finish([outcome(started_attempt, Outcome.FAILED)])
    make_due(job_id)
    before = jobs.get(job_id)
    assert start(job_id) == []
    job = jobs.get(job_id)
    assert (job.status, job.attempts, job.version) == (status, before.attempts, before.version)
    assert jobs.claim_awaiting(QUEUES, NEW, 10) == [job_id]


def test_unknown_job_is_not_dispatched_by_a_sweep() -> None:
    plain, keyed = submit(type="NEW"), submit(type="NEW", concurrency_key="k", concurrency_limit=1)
    jobs.claim_due(10)
    assert start(plain, keyed) == []
    assert dispatched() == set()
    assert jobs.seconds_to_next() is None


def test_second_refusal_writes_nothing() -> None:
    job_id = submit(type="NEW")
    start(job_id)
    before = sql("SELECT xmin::text FROM jobs")
    assert start(job_id) == []
    assert sql("SELECT xmin::text FROM jobs") == before


def test_known_jobs_start_in_order_of_queue_and_due_time() -> None:
    low, second, first, high = (submit(type="NEW", queue=queue) for queue in ("low", "default", "default", "high"))
    sql("UPDATE jobs SET due_at = due_at - interval '1 s' WHERE id = :id", id=first)
    start(low, second, first, high)
    assert jobs.count_awaiting(QUEUES, OLD, 10) == {}
    assert jobs.claim_awaiting(QUEUES, OLD, 10) == []
    assert jobs.count_awaiting(QUEUES, NEW, 10) == {"high": 1, "default": 2, "low": 1}
    assert jobs.count_awaiting(["default"], NEW, 1) == {"default": 1}
    assert jobs.claim_awaiting(QUEUES, NEW, 3) == [high, first, second]
    assert jobs.claim_awaiting(QUEUES, NEW, 3) == [low]
    assert sorted(start(low, second, first, high, types=NEW)) == sorted([low, second, first, high])


def test_start_with_a_known_type_needs_no_claim() -> None:
    job_id = submit(type="NEW")
    start(job_id)
    assert start(job_id, types=NEW) == [job_id]
    jobs.finish([jobs.returned_uncounted(job_id, 1)])
    assert dispatched() == {job_id}  # its next turn is dispatched like any other


def test_expired_unknown_job_is_not_claimed() -> None:
    job_id = submit(type="NEW", expires_in=60)
    start(job_id)
    sql("UPDATE jobs SET expires_at = now()")
    assert jobs.claim_awaiting(QUEUES, NEW, 10) == []
    assert jobs.expire(10) == 1
    assert jobs.get(job_id).status == Status.FAILED


def test_unknown_job_can_be_cancelled_and_retried() -> None:
    job_id = submit(type="NEW")
    start(job_id)
    jobs.cancel(job_id)
    assert jobs.claim_awaiting(QUEUES, NEW, 10) == []
    jobs.retry(job_id)
    assert awaiting() == set()
    assert start(job_id) == []
    assert awaiting() == {job_id}


def test_unknown_job_occupies_no_slot_of_its_key() -> None:
    strange, plain = (
        submit(type="NEW", concurrency_key="k", concurrency_limit=1),
        submit(concurrency_key="k", concurrency_limit=1),
    )
    assert [one.job_id for one in jobs.claim_due(10)] == [strange]
    assert start(strange) == []
    assert jobs.find_refused([strange, plain]) == [(strange, "NEW", "k")]
    assert [one.job_id for one in jobs.claim_next({"k"}, 10)] == [plain]
    assert start(plain) == [plain]
    assert jobs.claim_awaiting(QUEUES, NEW, 10) == [strange]
    assert start(strange, types=NEW) == []  # the place is taken: it waits for that, as any other
    assert awaiting() == set()


def test_paused_queue_keeps_unknown_jobs() -> None:
    job_id = submit(type="NEW")
    start(job_id)
    jobs.pause("default")
    assert (jobs.count_awaiting(QUEUES, NEW, 10), jobs.claim_awaiting(QUEUES, NEW, 10)) == ({}, [])
    assert start(job_id, types=NEW) == []
    jobs.resume("default")
    assert dispatched() == {job_id}


def test_no_two_workers_claim_the_same_job() -> None:
    ids = {submit(type="NEW") for _ in range(4)}
    start(*ids)
    with unknown_types.transaction() as holder:
        first = list(holder.scalars(unknown_types._claim, {"queues": ["default"], "types": ["NEW"], "most": 3}))
        second = jobs.claim_awaiting(QUEUES, NEW, 3)
    assert set(first) | set(second) == ids
    assert len(first) + len(second) == 4


def test_relay_offers_a_bounded_number_of_each_type() -> None:
    start(*[submit(type=type_, queue=queue) for type_ in ("A", "B") for queue in ("low", "high") for _ in range(3)])
    assert jobs.awaited_types(10, 2) == [("high", "A", 2), ("high", "B", 2), ("low", "A", 2), ("low", "B", 2)]
    assert len(jobs.awaited_types(3, 2)) == 3
    offered = jobs.claim_offers("low", "B", 2)
    assert [(one.type, one.queue) for one in offered] == [("B", "low")] * 2
    assert jobs.awaited_types(10, 9)[-1] == ("low", "B", 1)


def test_missing_handler_counts_no_attempt() -> None:
    """As if the process of the handlers were older than the worker's knowledge of the type."""
    started_attempt = started(type="NOWHERE", expires_in=60)
    end = attempt(started_attempt, Deadline(started_attempt, lambda progress: None), AttemptLog())
    jobs.finish([end])
    job, attempts, _ = jobs.history(started_attempt.job_id)
    assert (job.status, job.attempts, job.error, attempts) == (Status.PENDING, 0, None, [])
    assert job.expires_at is not None
    assert jobs.seconds_to_next() == pytest.approx(1, abs=0.5)


def test_any_type_starts_without_a_type_filter() -> None:
    assert len(jobs.start([submit(type="NEW")], "worker", LEASE)) == 1


def test_thousands_of_waiting_jobs_are_found_by_an_index() -> None:
    sql(
        """INSERT INTO jobs (id, type, queue, payload, status, timeout, retry_intervals, max_attempts, due_at,
        dispatched_at) SELECT gen_random_uuid(), 'OTHER', 'default', '{}', 'PENDING', 1, '{}', 1, now(),
        '9999-12-31 00:00:00+00' FROM generate_series(1, 20000)"""
    )
    sql("ANALYZE jobs")
    plan = "\n".join(
        row[0]
        for row in sql(
            "EXPLAIN ANALYZE "
            + str(unknown_types._count)
            .replace(":queues", "ARRAY['high', 'default']")
            .replace(":types", "ARRAY['NEW', 'TEST_JOB']")
            .replace(":most", "100")
        )
    )
    assert "jobs_awaiting_handler" in plan
    assert "Seq Scan on jobs" not in plan
    assert jobs.awaited_types(10, 5) == [("default", "OTHER", 5)]
