"""Jobs that depend on others: exact under concurrent transactions, and by a bounded number of statements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from jobsvc import jobs
from jobsvc.db.engine import engine
from jobsvc.errors import UnknownDependencies, WrongState
from jobsvc.jobs import Filter, StartedAttempt, pending_releases, releases
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, new, outcome, sql, started, submit
from tests.integration.locking import in_parallel, locked

OLD = UUID("0190a000-0000-7000-8000-000000000000")
"""An id of the year 2024."""


def status(job_id: UUID) -> str:
    return str(jobs.get(job_id).status)


def blocked(*depends_on: UUID, **more: Any) -> UUID:
    return submit(depends_on=list(depends_on), on_dependency_failure=more.pop("on_failure", "cancel"), **more)


def run(job_id: UUID, ending: Outcome = Outcome.COMPLETED) -> None:
    """Start the job and finish its attempt."""
    [start] = jobs.start([job_id], "worker", LEASE)
    assert len(jobs.finish([outcome(start, ending)])) == 1


def fail(job_id: UUID) -> None:
    run(job_id, Outcome.DISCARDED)


def finish(start: StartedAttempt, ending: Outcome = Outcome.COMPLETED) -> None:
    jobs.finish([outcome(start, ending)])


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    left = iter(acts)
    return in_parallel(len(acts), lambda: next(left)())


def check_edges() -> None:
    """Check that the number of open dependencies of each BLOCKED job is that of its open edges, and is not 0."""
    wrong = sql(
        """
        SELECT id, open_dependencies FROM jobs WHERE status = 'BLOCKED' AND (open_dependencies = 0 OR open_dependencies
        <> (SELECT count(*) FROM dependencies WHERE dependent_id = jobs.id AND is_open))
        """
    )
    assert wrong == []


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the statements of the block."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine(), "before_cursor_execute", note)


def test_last_end_releases_and_counts_the_wait_from_then() -> None:
    first, second = submit(), submit()
    dependent = blocked(first, second)
    sql("UPDATE jobs SET due_at = due_at - interval '1 h' WHERE id = :id", id=dependent)
    run(first)
    check_edges()
    assert status(dependent) == Status.BLOCKED
    assert jobs.start([dependent], "worker", LEASE) == []
    assert jobs.claim_due(10) == []
    run(second)
    assert status(dependent) == Status.PENDING
    assert [one.job_id for one in jobs.claim_due(10)] == [dependent]
    [start] = jobs.start([dependent], "worker", LEASE)
    assert start.waited < 60


def test_two_dependencies_that_end_at_once_release_once() -> None:
    for _ in range(20):
        starts = [started() for _ in range(4)]
        dependent = blocked(*(one.job_id for one in starts))
        before = jobs.get(dependent).version
        at_once(*(partial(finish, one) for one in starts))
        job = jobs.get(dependent)
        assert (job.status, job.open_dependencies, job.version) == (Status.PENDING, 0, before + 1)


def test_link_waits_for_the_end_of_a_dependency() -> None:
    start = started()
    with locked("SELECT FROM jobs WHERE id = :id FOR UPDATE", id=start.job_id) as line:
        ending = line.add(lambda: jobs.finish([outcome(start, Outcome.COMPLETED)]))
        linking = line.add(lambda: blocked(start.job_id))
    ending.result()
    assert status(linking.result()) == Status.PENDING


def test_end_waits_for_a_link_and_releases_it() -> None:
    start = started()
    with locked("SELECT FROM jobs WHERE id = :id FOR UPDATE", id=start.job_id) as line:
        linking = line.add(lambda: blocked(start.job_id))
        ending = line.add(lambda: jobs.finish([outcome(start, Outcome.DISCARDED)]))
    ending.result()
    assert status(linking.result()) == Status.CANCELLED


def test_links_and_ends_at_once_miss_nothing() -> None:
    for _ in range(10):
        starts = [started() for _ in range(3)]
        link = partial(blocked, *(one.job_id for one in starts))
        found = at_once(*(partial(finish, one) for one in starts), *[link] * 3)
        assert [status(one) for one in found if isinstance(one, UUID)] == [Status.PENDING] * 3


def test_retry_and_end_of_a_dependency_at_once() -> None:
    start = started()
    dependent = blocked(start.job_id)
    jobs.cancel(dependent)
    with locked("SELECT FROM jobs WHERE id = :id FOR UPDATE", id=start.job_id) as line:
        retrying = line.add(lambda: jobs.retry(dependent))
        ending = line.add(lambda: jobs.finish([outcome(start, Outcome.COMPLETED)]))
    assert retrying.result()[0].status == Status.BLOCKED
    ending.result()
    assert status(dependent) == Status.PENDING
    check_edges()


def test_retried_dependency_blocks_and_its_new_end_releases() -> None:
    first, second = submit(), submit()
    dependent = blocked(first, second, on_failure="run")
    fail(first)
    jobs.retry(first)
    assert jobs.get(dependent).open_dependencies == 2
    run(second)
    assert status(dependent) == Status.BLOCKED
    run(first)
    assert status(dependent) == Status.PENDING


def test_dependency_that_had_ended_when_named_blocks_after_its_retry() -> None:
    first, second = submit(), submit()
    fail(first)
    dependent = blocked(first, second, on_failure="run")
    jobs.retry(first)
    run(second)
    check_edges()
    assert status(dependent) == Status.BLOCKED
    run(first)
    assert status(dependent) == Status.PENDING


def test_retry_of_a_workflow_in_one_batch_keeps_its_order() -> None:
    ids = [one.job_id for one in jobs.submit([new(), new(depends_on=[0]), new(depends_on=[1])])]
    fail(ids[0])
    assert [status(one) for one in ids] == [Status.FAILED, Status.CANCELLED, Status.CANCELLED]
    [batch] = jobs.retry_all(Filter(type="TEST_JOB"))
    assert {one.job_id: one.dispatch is not None for one in batch} == dict(zip(ids, (True, False, False), strict=True))
    assert [status(one) for one in ids] == [Status.PENDING, Status.BLOCKED, Status.BLOCKED]
    check_edges()
    for one in ids:
        run(one)


def test_bulk_retry_skips_what_a_failed_dependency_cancels() -> None:
    first = submit()
    dependent = blocked(first)
    fail(first)
    assert list(jobs.retry_all(Filter(statuses=[Status.CANCELLED]))) == [[]]
    assert status(dependent) == Status.CANCELLED
    with pytest.raises(WrongState, match=str(first)):
        jobs.retry(dependent)


def test_cancel_cascades_with_counts_and_webhooks() -> None:
    first = submit()
    second = blocked(first, webhook_url="https://example.com/")
    third = blocked(second)
    jobs.cancel(first)
    assert [status(one) for one in (second, third)] == [Status.CANCELLED] * 2
    [delivery] = sql("SELECT payload FROM jobs WHERE type = 'WEBHOOK'")
    assert delivery.payload["body"]["data"]["error"]["type"] == "DependencyFailed"
    dropped = [row for row in jobs.read_counters() if row.event == "dropped"]
    assert [(row.status, row.number) for row in dropped] == [("CANCELLED", 3)]


def test_cancel_cascade_meets_the_end_of_another_dependency() -> None:
    for _ in range(10):
        first, second = started(), started()
        middle = blocked(first.job_id)
        last = blocked(middle, second.job_id)
        at_once(partial(finish, first, Outcome.DISCARDED), partial(finish, second))
        assert [status(one) for one in (middle, last)] == [Status.CANCELLED] * 2


def test_plain_jobs_cost_no_statement() -> None:
    first, second = submit(), submit()
    [start] = jobs.start([first], "worker", LEASE)
    with counted() as statements:
        jobs.finish([outcome(start, Outcome.COMPLETED)])
    assert len(statements) == 1
    with counted() as statements:
        jobs.cancel(second)
    assert len(statements) == 2  # the change, and what it returns
    with counted() as statements:
        jobs.retry(second)
    assert len(statements) == 2
    with counted() as statements:
        jobs.remove(first)
    assert len(statements) == 1


def test_diamond_of_a_thousand_edges_takes_few_statements() -> None:
    with counted() as statements:
        ids = [
            one.job_id
            for one in jobs.submit(
                [new(), *[new(depends_on=[0]) for _ in range(500)], new(depends_on=list(range(1, 501)))]
            )
        ]
    assert len(statements) < 10
    with counted() as statements:
        run(ids[0])
    assert len(statements) < 10
    assert {status(one) for one in ids[1:-1]} == {Status.PENDING}
    starts = jobs.start(ids[1:-1], "worker", LEASE)
    assert len(starts) == 500
    with counted() as statements:
        jobs.finish([outcome(one, Outcome.COMPLETED) for one in starts])
    assert len(statements) < 30  # 100 ended jobs by each
    assert status(ids[-1]) == Status.PENDING


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("ending", [Outcome.COMPLETED, Outcome.DISCARDED])
def test_three_thousand_dependents_are_released_in_batches(ending: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    first = submit()
    for _ in range(3):
        jobs.submit([new(depends_on=[first], on_dependency_failure="cancel") for _ in range(1000)])
    run(first, ending)
    left = "SELECT count(*) FROM jobs WHERE status = 'BLOCKED'"
    assert sql(left) == [(2000,)]

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(releases, "set_open", die)
        with pytest.raises(Killed):
            jobs.release_pending()
    assert sql(left) == [(2000,)]
    assert jobs.release_pending()
    assert sql(left) == [(1000,)]
    while jobs.release_pending():
        pass
    assert sql("SELECT status, count(*) FROM jobs WHERE id <> :id GROUP BY 1", id=first) == [
        (Status.PENDING if ending == Outcome.COMPLETED else Status.CANCELLED, 3000)
    ]
    assert sql("SELECT FROM pending_releases") == []
    assert sql("SELECT FROM dependencies WHERE is_open") == []


def test_two_relays_release_at_once() -> None:
    firsts = [submit() for _ in range(4)]
    for one in firsts:
        for _ in range(2):
            jobs.submit([new(depends_on=[one]) for _ in range(1000)])
        run(one)

    def release_all() -> None:
        while sql("SELECT FROM pending_releases"):
            jobs.release_pending()

    in_parallel(3, release_all)
    assert sql("SELECT count(*) FROM jobs WHERE status = 'PENDING'") == [(8000,)]


def test_retry_stops_a_pending_release() -> None:
    first = submit()
    for _ in range(2):
        jobs.submit([new(depends_on=[first], on_dependency_failure="run") for _ in range(1000)])
    fail(first)
    jobs.retry(first)
    assert not jobs.release_pending()
    assert sql("SELECT count(*) FROM jobs WHERE status = 'BLOCKED'") == [(1000,)]
    check_edges()
    run(first)
    while jobs.release_pending():
        pass
    assert sql("SELECT count(*) FROM jobs WHERE status = 'BLOCKED'") == [(0,)]


def test_long_chain_is_cancelled_to_its_end() -> None:
    ids = [one.job_id for one in jobs.submit([new(), *[new(depends_on=[n]) for n in range(99)]])]
    fail(ids[0])
    assert sql("SELECT count(*) FROM jobs WHERE status = 'CANCELLED'") == [(releases.MAX_LEVELS,)]
    while jobs.release_pending():
        pass
    assert sql("SELECT count(*) FROM jobs WHERE status = 'CANCELLED'") == [(99,)]


def test_jobs_that_were_not_released_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_releases, "CHECKED", 2)
    first, second, third = submit(), submit(), submit()
    dependents = [blocked(first), blocked(second, on_failure="run"), blocked(third), blocked(second)]
    sql("UPDATE jobs SET status = 'COMPLETED', finished_at = now() WHERE id = :id", id=first)
    sql("DELETE FROM jobs WHERE id = :id", id=second)
    edge = jobs.NO_EDGE
    for _ in range(3):
        edge = jobs.find_unreleased(edge)
        while jobs.release_pending():
            pass
    assert edge == jobs.NO_EDGE
    expected = [Status.PENDING, Status.PENDING, Status.BLOCKED, Status.PENDING]
    assert [status(one) for one in dependents] == expected
    assert sql("SELECT FROM pending_releases") == []


def test_unknown_dependency_stores_nothing() -> None:
    known = submit()
    with pytest.raises(UnknownDependencies) as raised:
        jobs.submit([new(), new(depends_on=[known, uuid4(), 0])])
    assert raised.value.places == [(1, 1)]
    assert sql("SELECT count(*) FROM jobs") == [(1,)]


def test_ids_follow_the_order_of_dependencies() -> None:
    ids = [one.job_id for one in jobs.submit([new(depends_on=[2]), new(), new(depends_on=[1])])]
    assert ids[1] < ids[2] < ids[0]


def test_retention_keeps_what_a_blocked_job_depends_on() -> None:
    first, second = submit(), submit()
    dependent = blocked(first, second)
    run(first)
    sql("UPDATE jobs SET finished_at = now() - interval '9 days' WHERE id = :id", id=first)
    sql("UPDATE jobs SET id = :new WHERE id = :old", new=OLD, old=first)
    sql("UPDATE dependencies SET dependency_id = :new WHERE dependency_id = :old", new=OLD, old=first)
    assert jobs.prune(86400, 10).job_ids == []
    jobs.cancel(dependent)
    assert jobs.prune(86400, 10).job_ids == [OLD]


def test_deleted_job_leaves_no_edge() -> None:
    first = submit()
    dependent = blocked(first)
    run(first)
    run(dependent)
    assert [set(batch) for batch in jobs.remove_all(Filter(type="TEST_JOB"))] == [{first, dependent}]
    assert sql("SELECT FROM dependencies") == []


def test_delete_waits_for_a_link_to_the_job() -> None:
    first, second = submit(), submit()
    run(first)
    with locked("SELECT FROM jobs WHERE id = :id FOR UPDATE", id=first) as line:
        linking = line.add(lambda: blocked(first, second))
        removing = line.add(lambda: jobs.remove(first))
    assert status(linking.result()) == Status.BLOCKED
    with pytest.raises(WrongState, match=str(linking.result())):
        removing.result()
