"""Queues in Postgres: paused ones start nothing and lose nothing; counts and ages; places under a concurrency key."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db.engine import engine
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.duties import Duties, Duty
from jobsvc.jobs import admission, stats
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, make_due, new, outcome, sql, submit
from tests.integration.locking import in_parallel, waits_for_a_lock
from tests.integration.plans import blocks_read
from tests.support.service import eventually

HIGH = ["high", "default", "low"]


@pytest.fixture(autouse=True)
def _count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(stats, "SLOW_SECONDS", math.inf)


def start(*job_ids: UUID) -> list[jobs.StartedAttempt]:
    return jobs.start(job_ids, "worker", LEASE)


def end(attempt: jobs.StartedAttempt) -> None:
    assert jobs.finish([outcome(attempt, Outcome.COMPLETED)])


def withheld() -> set[UUID]:
    return {row.id for row in sql("SELECT id FROM jobs WHERE dispatched_at = 'infinity'")}


def claimed_ids(claim: list[jobs.Dispatch]) -> list[UUID]:
    return [one.job_id for one in claim]


def in_rq() -> list[str]:
    return rq_redis.queue("default").get_job_ids()


# --- paused


def test_paused_queue_starts_nothing_while_another_does() -> None:
    here, elsewhere = submit(), submit(queue="low")
    jobs.pause("default")
    assert [one.job_id for one in start(here, elsewhere)] == [elsewhere]
    assert withheld() == {here}
    assert jobs.get(here).status == Status.PENDING


def test_job_refused_by_a_pause_is_claimed_again_only_after_resume() -> None:
    job_id = submit()
    jobs.pause("default")
    start(job_id)
    duties = Duties()
    duties.sweep()
    assert jobs.claim_due(10) == jobs.claim_resumed("default", 10) == []
    assert jobs.seconds_to_next() is None
    assert in_rq() == []
    jobs.resume("default")
    duties.sweep()
    assert in_rq() == [str(job_id)]
    assert len(start(job_id)) == 1


def test_jobs_withheld_by_a_pause_are_dispatched_in_due_order() -> None:
    jobs.pause("default")
    duties = Duties()
    taken = [submit() for _ in range(3)]
    duties.new.extend([one.dispatch for one in jobs.submit([new()]) if one.dispatch])
    duties.dispatch_new()
    [(duty, moment)] = duties.requests
    assert (duty, moment <= time.monotonic()) == (Duty.DUE, True)
    duties.dispatch_due()
    assert in_rq() == []
    assert len(withheld()) == 4
    sql("UPDATE jobs SET due_at = now() - interval '1 h' WHERE id = :id", id=taken[2])
    jobs.resume("default")
    duties.sweep()
    assert in_rq()[:3] == [str(taken[2]), str(taken[0]), str(taken[1])]
    assert len(in_rq()) == 4


def test_due_jobs_of_a_paused_queue_wait_for_resume() -> None:
    failed, later = start(submit())[0], submit(delay=60)
    jobs.pause("default")
    jobs.finish([outcome(failed, Outcome.FAILED)])
    for job_id in (failed.job_id, later):
        make_due(job_id)
    assert jobs.claim_due(10) == []
    assert withheld() == {failed.job_id, later}
    assert [jobs.get(job_id).status for job_id in (failed.job_id, later)] == [Status.RETRYING, Status.SCHEDULED]
    jobs.resume("default")
    assert len(jobs.claim_resumed("default", 10)) == 2


def test_sweep_reads_no_jobs_of_a_paused_queue() -> None:
    jobs.submit([new()] * 2000)
    sql("UPDATE jobs SET due_at = now() - interval '60 s', dispatched_at = now() - interval '60 s'")
    jobs.pause("default")
    assert blocks_read(lambda: jobs.claim_missing("default", None, 15, 10)) < 20
    sql("UPDATE jobs SET dispatched_at = 'infinity'")
    sql("ANALYZE jobs")
    assert blocks_read(lambda: jobs.claim_resumed("default", 10)) < 20


def test_jobs_lost_during_a_pause_are_dispatched_after_resume() -> None:
    lost = submit()
    sql("UPDATE jobs SET due_at = now() - interval '60 s', dispatched_at = now() - interval '60 s'")
    jobs.pause("default")
    assert jobs.claim_missing("default", None, 15, 10) == []
    jobs.resume("default")
    assert claimed_ids(jobs.claim_missing("default", None, 15, 10)) == [lost]


def test_started_withheld_job_is_dispatched_for_its_next_attempt() -> None:
    job_id = submit()
    jobs.pause("default")
    start(job_id)
    jobs.resume("default")
    [attempt] = start(job_id)
    jobs.finish([outcome(attempt, Outcome.FAILED)])
    make_due(job_id)
    assert claimed_ids(jobs.claim_due(10)) == [job_id]


def test_pause_and_resume_are_idempotent() -> None:
    jobs.pause("low")
    [(since,)] = sql("SELECT paused_at FROM queues")
    jobs.pause("low")
    assert sql("SELECT paused_at FROM queues") == [(since,)]
    jobs.resume("low")
    jobs.resume("low")
    assert jobs.paused_queues() == set()


# --- what is in them


def test_queues_show_counts_and_ages() -> None:
    submit()
    submit(delay=60)
    end(start(submit())[0])
    jobs.finish([outcome(start(submit())[0], Outcome.FAILED)])
    jobs.finish([outcome(start(submit())[0], Outcome.DISCARDED)])
    start(submit())
    sql("UPDATE jobs SET due_at = now() - interval '10 s' WHERE status = 'PENDING'")
    jobs.pause("high")
    submit(queue="high")
    high, default, low = jobs.queue_states(HIGH)
    assert [queue.name for queue in (high, default, low)] == HIGH
    expected = {"PENDING": 1, "SCHEDULED": 1, "RETRYING": 1, "PROCESSING": 1, "COMPLETED": 1, "FAILED": 1}
    assert default.counts == {**expected, "BLOCKED": 0, "CANCELLED": 0}
    assert default.oldest_waiting == pytest.approx(10, abs=2)
    assert (high.is_paused, high.counts[Status.PENDING]) == (True, 1)
    assert high.oldest_waiting == pytest.approx(0, abs=2)
    assert (low.is_paused, set(low.counts.values()), low.oldest_waiting) == (False, {0}, None)


def test_withheld_jobs_are_counted_once_and_have_an_age() -> None:
    job_id, keyed = submit(), submit(concurrency_key="k", concurrency_limit=1)
    jobs.pause("default")
    start(job_id, keyed)
    sql("UPDATE jobs SET due_at = now() - interval '5 s'")
    [queue] = jobs.queue_states(["default"])
    assert queue.counts[Status.PENDING] == 2
    assert queue.oldest_waiting == pytest.approx(5, abs=2)


def test_job_that_is_not_due_has_no_age() -> None:
    submit(delay=60)
    assert jobs.queue_states(["default"])[0].oldest_waiting is None


def test_unserved_queue_is_shown_while_it_has_unfinished_jobs() -> None:
    job_id = submit(queue="old")
    assert [queue.name for queue in jobs.queue_states(HIGH)] == [*HIGH, "old"]
    end(start(job_id)[0])
    assert [queue.name for queue in jobs.queue_states(HIGH)] == HIGH


def test_a_slow_count_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    read = stats.cached_if_slow(lambda: text("SELECT count(*) FROM jobs"))
    monkeypatch.setattr(stats, "SLOW_SECONDS", 0)
    monkeypatch.setattr(stats, "CACHED_RATIO", 10**6)
    assert read() == [(0,)]
    submit()
    assert read() == [(0,)]
    monkeypatch.setattr(stats, "CACHED_RATIO", 0)
    again = stats.cached_if_slow(lambda: text("SELECT count(*) FROM jobs"))
    assert again() == [(1,)]
    submit()
    assert again() == [(2,)]


# --- concurrency keys


def keyed(limit: int = 1, key: str = "k", **more: object) -> UUID:
    return submit(concurrency_key=key, concurrency_limit=limit, **more)


def test_keyed_job_counts_as_dispatched_only_after_its_dispatch() -> None:
    first, second = keyed(), keyed()
    assert jobs.get(first).dispatched_at is None
    assert claimed_ids(jobs.claim_due(10)) == [first]
    assert withheld() == {second}


def test_jobs_beyond_the_limit_are_withheld() -> None:
    ids = [keyed(3) for _ in range(5)]
    attempt = start(*ids)
    assert len(attempt) == 3
    assert len(withheld()) == 2
    end(attempt[0])
    assert len(start(*ids)) == 1


def test_concurrency_keys_are_independent() -> None:
    assert len(start(keyed(key="a"), keyed(key="b"), submit())) == 3


def test_each_job_follows_its_own_limit() -> None:
    one, three = [keyed(1), keyed(1)], [keyed(3) for _ in range(3)]
    attempt = {start.job_id for start in start(*one, *three)}
    assert attempt == {one[0], *three[:2]}  # the longest due first, each by its own limit
    assert start(*one, *three) == []


def test_freed_slot_goes_to_the_job_due_first() -> None:
    first, second, third = keyed(), keyed(), keyed()
    jobs.claim_due(10)
    [attempt] = start(first)
    assert jobs.claim_next(["k"], 10) == []
    end(attempt)
    newcomer = keyed()
    assert claimed_ids(jobs.claim_due(10)) == [second]
    assert jobs.claim_next(["k"], 10) == []  # it is on its way, and takes the place
    assert withheld() == {third, newcomer}


def test_waiting_retry_occupies_no_slot() -> None:
    first, second = keyed(), keyed()
    jobs.claim_due(10)
    [attempt] = start(first)
    [transition] = jobs.finish([outcome(attempt, Outcome.FAILED)])
    assert transition.concurrency_key == "k"
    assert claimed_ids(jobs.claim_next(["k"], 10)) == [second]
    make_due(first)
    assert jobs.claim_due(10) == []
    assert withheld() == {first}


def test_lost_attempt_frees_its_slot() -> None:
    first, second = keyed(), keyed()
    Duties().dispatch_due()
    start(first)
    sql("UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE status = 'PROCESSING'")
    jobs.recover_lapsed(10, 0)
    Duties().sweep()
    assert in_rq() == [str(first), str(second)]  # the first entry is of its first dispatch


def test_dispatched_job_of_a_paused_queue_occupies_no_slot() -> None:
    stuck = keyed(queue="low")
    assert claimed_ids(jobs.claim_due(10)) == [stuck]
    jobs.pause("low")
    goes = keyed()
    assert claimed_ids(jobs.claim_due(10)) == [goes]


def test_keyed_job_of_a_paused_queue_is_dispatched_after_resume() -> None:
    jobs.pause("default")
    job_id = keyed()
    duties = Duties()
    duties.dispatch_due()
    duties.sweep()
    assert (withheld(), in_rq()) == ({job_id}, [])
    jobs.resume("default")
    duties.sweep()
    assert in_rq() == [str(job_id)]


def test_sweep_skips_keys_without_a_free_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a", "b"):
        start(keyed(key=key))
    ids = [keyed(key=key) for key in ("a", "b", "c")]
    sql("UPDATE jobs SET dispatched_at = 'infinity' WHERE status = 'PENDING'")
    monkeypatch.setattr("jobsvc.dispatch.duties.BATCH", 2)
    duties = Duties()
    duties.sweep()
    assert in_rq() == []
    duties.sweep()
    assert in_rq() == [str(ids[2])]


def test_withheld_jobs_are_not_dispatched_repeatedly() -> None:
    ids = [keyed() for _ in range(50)]
    duties = Duties()
    for _ in range(3):
        duties.dispatch_due()
        duties.sweep()
    assert in_rq() == [str(ids[0])]
    assert jobs.seconds_to_next() is None


def test_ten_threads_never_exceed_the_limit() -> None:
    limit, ids = 3, [keyed(3) for _ in range(200)]
    deadline = time.monotonic() + 60
    guard = threading.Lock()
    running: set[UUID] = set()
    done: set[UUID] = set()
    most = 0

    def work(n: int) -> None:
        nonlocal most
        while len(done) < len(ids) and time.monotonic() < deadline:
            for attempt in start(*ids[n * 20 : n * 20 + 20], *ids[:5]):  # each takes locks on what others want too
                with guard:
                    running.add(attempt.job_id)
                    most = max(most, len(running))
                time.sleep(0.002)  # the handler, so that two at once would be seen
                with guard:  # before the end is committed: from then on another may start
                    running.remove(attempt.job_id)
                    done.add(attempt.job_id)
                end(attempt)

    with ThreadPoolExecutor(10) as pool:  # as many as a process has connections
        list(pool.map(work, range(10)))
    assert done == set(ids)
    assert most <= limit


def test_twenty_concurrent_starts_fill_the_slots_exactly() -> None:
    ids = [keyed(7) for _ in range(20)]
    todo = iter(ids)
    assert sum(len(attempt) for attempt in in_parallel(20, lambda: start(next(todo)))) == 7
    assert sql("SELECT count(*) FROM jobs WHERE status = 'PROCESSING'") == [(7,)]


def test_keys_are_locked_in_one_order() -> None:
    keys = [f"k{n}" for n in range(500)]
    orders = iter([keys, keys[::-1]] * 5)

    def lock() -> None:
        with engine().begin() as connection:
            admission.lock(connection, next(orders))

    in_parallel(10, lock)  # else one of them is a deadlock's victim


def test_start_waits_for_another_start_of_its_key() -> None:
    """The other one has the key's lock, and its job running once it lets go."""
    first, second = keyed(), keyed()
    with engine().begin() as other, ThreadPoolExecutor(1) as pool:
        admission.lock(other, ["k"])
        answer = pool.submit(lambda: start(second))
        eventually(waits_for_a_lock)
        other.execute(text("UPDATE jobs SET status = 'PROCESSING' WHERE id = :id"), {"id": first})
        other.commit()
        assert answer.result() == []
    assert withheld() == {second}


def test_start_that_waited_for_its_key_has_a_later_start_time() -> None:
    second = keyed()
    with engine().begin() as other, ThreadPoolExecutor(1) as pool:
        admission.lock(other, ["k"])
        answer = pool.submit(lambda: start(second))
        eventually(waits_for_a_lock)
        let_go = other.scalar(text("SELECT clock_timestamp()"))
        other.commit()
        assert len(answer.result()) == 1
    started_at = jobs.get(second).started_at
    assert started_at
    assert started_at > let_go
