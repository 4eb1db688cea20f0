"""What the console and `explain` take from Redis, and say if they can't."""

from uuid import uuid4

from rq.suspension import resume, suspend

from jobsvc.api.redis_view import read_redis
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.rq_names import key


def test_redis_without_workers_has_no_problem() -> None:
    view = read_redis()
    assert (list(view.workers), view.problem, view.is_suspended) == ([], None, False)


def test_suspended_workers_are_seen_until_they_are_resumed() -> None:
    suspend(rq_redis.connection())
    try:
        view = read_redis()
        assert (view.problem, view.is_suspended) == (None, True)
    finally:
        resume(rq_redis.connection())
    assert not read_redis().is_suspended


def test_namespace_of_another_database_is_a_problem() -> None:
    connection = rq_redis.connection()
    connection.set(key("owner"), str(uuid4()))
    try:
        view = read_redis()
    finally:
        connection.delete(key("owner"))
    assert (list(view.workers), view.is_suspended) == ([], False)
    assert view.problem == "The namespace jobsvc in Redis belongs to another database, so no job is dispatched."
    assert read_redis().problem is None
