"""Jobs that are in RQ under the queue names of version 0.1.0 are moved, and nothing of others is touched."""

import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from rq import Queue

from jobsvc import jobs
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.old_names import AT_ONCE, OldNames
from jobsvc.states import Outcome
from tests.integration.factories import dispatches, new, outcome, sql, started

pytestmark = pytest.mark.usefixtures("clean")


def client() -> Any:
    return rq_redis.connection()


def left_by_old_version(job_id: UUID, place: str) -> None:
    """Return RQ's keys of a job that an old process dispatched."""
    client().hset(f"rq:job:{job_id}", mapping={"origin": "default", "status": "queued", "data": "x"})
    if place.startswith("queue"):
        client().rpush(f"rq:{place}", str(job_id))
    else:
        client().zadd(f"rq:{place}", {str(job_id): 9e9})


def test_queued_jobs_are_moved_to_the_namespace() -> None:
    ids = [one.job_id for one in dispatches([new() for _ in range(3)])]
    for job_id, place in zip(ids, ("queue:default", "queue:default:intermediate", "queue:default"), strict=True):
        left_by_old_version(job_id, place)
    assert OldNames().step() == 3
    assert not client().exists("rq:queue:default", "rq:queue:default:intermediate")
    assert sorted(rq_redis.queue("default").get_job_ids()) == sorted(map(str, ids))
    assert client().hget(f"rq:job:{ids[0]}", "origin") == b"jobsvc.default"
    assert OldNames().step() == 0


def test_scheduled_jobs_are_moved_to_the_namespace() -> None:
    [one] = dispatches([new(delay=60)])
    left_by_old_version(one.job_id, "scheduled:default")
    assert OldNames().step() == 1
    assert not client().exists("rq:scheduled:default")
    assert rq_redis.queue("default").scheduled_job_registry.get_job_ids() == [str(one.job_id)]


def test_finished_jobs_are_shown_in_the_namespace() -> None:
    ended, again = started(), dispatches([new()])[0].job_id
    jobs.finish([outcome(ended, Outcome.COMPLETED)])
    left_by_old_version(ended.job_id, "finished:default")
    left_by_old_version(again, "failed:default")
    assert OldNames().step() == 2
    assert not client().exists("rq:finished:default", "rq:failed:default")
    assert client().zscore("rq:finished:jobsvc.default", str(ended.job_id)) == 9e9
    assert not client().exists("rq:failed:jobsvc.default")


def test_running_attempt_is_kept_and_a_lost_one_removed() -> None:
    runs, lost = started(), started()
    client().zadd("rq:wip:default", {f"{runs.job_id}:a": time.time() + 60, f"{lost.job_id}:b": time.time() - 60})
    assert OldNames().step() == 1
    assert client().zrange("rq:wip:default", 0, -1) == [f"{runs.job_id}:a".encode()]


def test_jobs_of_other_applications_are_not_moved() -> None:
    theirs = Queue("default", connection=client())
    ids = [theirs.enqueue(time.time).id for _ in range(AT_ONCE + 100)]
    ours = [one.job_id for one in dispatches([new() for _ in range(5)])]
    for job_id in ours:
        left_by_old_version(job_id, "queue:default")
    unknown = str(UUID(int=ours[0].int ^ 1))  # of the same kind, and none of ours
    client().rpush("rq:queue:default", unknown)
    client().zadd("rq:finished:default", {str(uuid4()): 1, unknown: 2})
    before = {job_id: client().hgetall(f"rq:job:{job_id}") for job_id in ids}
    names = OldNames()
    assert [names.step() for _ in range(3)] == [0, 5, 0]
    assert theirs.get_job_ids() == [*ids, unknown]
    assert {job_id: client().hgetall(f"rq:job:{job_id}") for job_id in ids} == before
    assert client().zcard("rq:finished:default") == 2


def test_job_that_is_due_later_is_not_claimed() -> None:
    [one] = dispatches([new(delay=60)])
    left_by_old_version(one.job_id, "queue:default")
    OldNames().step()
    [(dispatched_at,)] = sql("SELECT dispatched_at FROM jobs")
    assert dispatched_at is None
