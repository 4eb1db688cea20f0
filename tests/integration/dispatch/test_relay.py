"""The relay on a real Redis, and without one."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.job import Job as RQJob
from rq.utils import import_attribute

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.dispatch import enqueue, rq_redis
from jobsvc.dispatch.duties import Duties, Duty
from jobsvc.dispatch.relay import Relay
from jobsvc.execution import rq_entry
from tests.integration.factories import dispatches, make_due, new, sql, submit
from tests.support.service import eventually


def queue() -> Any:
    return rq_redis.queue("default")


def fetch(job_id: object) -> RQJob:
    return RQJob.fetch(str(job_id), connection=rq_redis.connection(), serializer=rq_redis.SERIALIZER)


def call_in(fields: dict[bytes, bytes]) -> tuple[str, list[Any]]:
    """The function and arguments that RQ reads from a job's hash."""
    job = RQJob("x", connection=rq_redis.connection(), serializer=rq_redis.SERIALIZER)
    job.restore(fields)
    return job.func_name, list(job.args)


@pytest.fixture
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that can't be reached: port 9 is closed."""
    unreachable = Redis(port=9, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(rq_redis, "connection", lambda: unreachable)
    monkeypatch.setattr(rq_redis, "queue", rq_redis.queue.__wrapped__)


def test_due_job_is_queued_with_rqs_own_retry() -> None:
    [one] = dispatches([new(retry_intervals=[1.0, 2.5, 2.5], timeout=0.5)])
    Duties().dispatch([one])
    rq_job = fetch(one.job_id)
    assert queue().get_job_ids() == [str(one.job_id)]
    assert (rq_job.func_name, list(rq_job.args)) == ("jobsvc.execution.run", [str(one.job_id)])
    assert (rq_job.retries_left, rq_job.retry_intervals) == (3, [1, 3, 3])
    assert (rq_job.description, rq_job.timeout) == ("TEST_JOB", 11)


def test_queued_job_has_the_same_keys_as_by_rq() -> None:
    for wanted in (new(), new(type="HTTP_REQUEST", timeout=7, retry_intervals=[])):
        [one] = dispatches([wanted])
        key = f"rq:job:{one.job_id}"
        Duties().dispatch([one])
        ours = rq_redis.connection().hgetall(key)
        rq_redis.connection().flushdb()
        plan = enqueue._plan(one.type, one.timeout, one.retry_intervals)
        queue().enqueue_many(
            [queue().prepare_data(enqueue.RUN, args=(str(one.job_id),), job_id=str(one.job_id), **plan)]
        )
        rqs = rq_redis.connection().hgetall(key)
        assert ours.keys() == rqs.keys()
        assert call_in(ours) == call_in(rqs) == ("jobsvc.execution.run", [str(one.job_id)])
        differing = {name for name in rqs if ours[name] != rqs[name]}
        assert differing == {b"data", b"created_at", b"enqueued_at"}
        assert rq_redis.connection().smembers("rq:queues") == {b"rq:queue:jobsvc.default"}


def test_delayed_job_is_scheduled_not_earlier_than_due() -> None:
    [one] = dispatches([new(delay=30.5)])
    Duties().dispatch([one])
    scheduled: datetime = queue().scheduled_job_registry.get_scheduled_time(str(one.job_id))
    assert 0 <= scheduled.timestamp() - one.due_at.timestamp() < 1
    assert queue().get_job_ids() == []


def test_due_job_moves_from_the_schedule_to_the_queue() -> None:
    [one] = dispatches([new(delay=30)])
    duties = Duties()
    duties.dispatch([one])
    make_due(one.job_id)
    duties.dispatch_due()
    assert queue().get_job_ids() == [str(one.job_id)]
    assert queue().scheduled_job_registry.get_job_ids() == []
    duties.dispatch_due()
    assert queue().get_job_ids() == [str(one.job_id)]


def test_job_queued_by_rqs_scheduler_is_not_queued_twice() -> None:
    [one] = dispatches([new(delay=30)])
    duties = Duties()
    duties.dispatch([one])
    queue().scheduled_job_registry.remove(str(one.job_id))
    queue().enqueue_job(fetch(one.job_id))
    make_due(one.job_id)
    duties.dispatch_due()
    assert queue().get_job_ids() == [str(one.job_id)]


def test_jobs_lost_by_redis_are_queued_again() -> None:
    lost = submit()
    sql("UPDATE jobs SET due_at = now() - interval '60 s', dispatched_at = now() - interval '60 s'")
    Duties().sweep()
    assert queue().get_job_ids() == [str(lost)]


def test_concurrent_sweeps_queue_each_job_once() -> None:
    lost, due = [submit() for _ in range(100)], [submit(delay=60) for _ in range(100)]
    then = "now() - interval '60 s'"
    sql(f"UPDATE jobs SET due_at = {then}, dispatched_at = {then} WHERE dispatched_at IS NOT NULL")
    sql("UPDATE jobs SET due_at = now() WHERE dispatched_at IS NULL")
    barrier = threading.Barrier(6)

    def sweep() -> None:
        duties = Duties()
        barrier.wait()
        duties.dispatch_due()
        duties.sweep()

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(sweep) for _ in range(6)]:
            done.result()
    assert sorted(queue().get_job_ids()) == sorted(str(job_id) for job_id in lost + due)


def test_foreign_job_at_the_head_stops_nothing() -> None:
    submit()
    rq_redis.connection().rpush("rq:queue:jobsvc.default", "not-one-of-ours")
    assert Duties().sweep() > 0


def test_claims_are_undone_without_redis(no_redis: None) -> None:
    [one] = dispatches([new()])
    assert Duties().dispatch([one]) == 0
    assert jobs.get(one.job_id).dispatched_at is None


def test_nothing_is_claimed_without_redis(no_redis: None) -> None:
    job_id = submit(delay=60)
    make_due(job_id)
    Duties().dispatch_due()
    Duties().sweep()
    assert jobs.get(job_id).dispatched_at is None


def test_jobs_are_dispatched_in_batches() -> None:
    duties = Duties()
    duties.new.extend(dispatches([new() for _ in range(2500)]))
    assert [duties.dispatch_new() for _ in range(3)] == [0, 0, math.inf]
    assert len(queue().get_job_ids()) == 2500


def test_queued_function_is_the_published_entry_point() -> None:
    assert enqueue.RUN == "jobsvc.execution.run"  # stored in Redis with every queued job, by older versions, too
    assert import_attribute(enqueue.RUN) is rq_entry.run


def test_redis_counts_as_available_only_after_a_reply(no_redis: None, caplog: pytest.LogCaptureFixture) -> None:
    """As in a sweep with nothing to dispatch, during which Redis became unavailable."""
    caplog.set_level("INFO", "jobsvc.relay")
    duties = Duties()
    assert not duties._redis_answers()
    assert duties._not_queued([]) == []
    assert not duties._redis_answers()
    assert [record.message.partition(",")[0] for record in caplog.records] == ["Redis: unavailable"]


def test_failed_duty_is_logged_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(limit: int) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(jobs, "expire", fail)  # the first step of a sweep
    relay = Relay().start()
    relay.notify(Duty.SWEEP)
    later = dispatches([new()])
    relay.dispatch(later)
    eventually(lambda: queue().get_job_ids() == [str(later[0].job_id)])
    relay.stop()
    pause = settings().JOBSVC_SWEEP_SECONDS
    assert caplog.messages[0] == f"relay: duty sweep failed, next try in {pause:g} s"


def test_requested_duty_is_not_lost_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, may_end = threading.Event(), threading.Event()
    runs: list[float] = []

    def tick(limit: int) -> list[jobs.Dispatch]:
        runs.append(time.monotonic())
        entered.set()
        assert may_end.wait(10)
        return []

    monkeypatch.setattr(jobs.schedules, "tick", tick)
    kept = settings().model_copy(update={"JOBSVC_SWEEP_SECONDS": 60.0})
    for module in ("relay", "duties"):
        monkeypatch.setattr(f"jobsvc.dispatch.{module}.settings", lambda: kept)
    relay = Relay().start()
    relay.notify(Duty.SCHEDULES)
    assert entered.wait(10)
    relay.notify(Duty.SCHEDULES)
    may_end.set()
    eventually(lambda: len(runs) == 2)
    relay.stop()
