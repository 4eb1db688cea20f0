"""Rate limits in Postgres: never more starts in a window, by any number of workers."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db.engine import engine
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.duties import Duties
from jobsvc.jobs import admission, claims, lanes, withheld
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, make_due, new, outcome, sql, submit
from tests.integration.locking import in_parallel, waits_for_a_lock
from tests.support.service import eventually


def limited(limit: int = 1, per: float = 60, key: str = "r", **more: Any) -> UUID:
    return submit(rate_key=key, rate_limit=limit, rate_per=per, **more)


def many(count: int, limit: int = 1, per: float = 60, key: str = "r", **more: Any) -> list[UUID]:
    wanted = [new(rate_key=key, rate_limit=limit, rate_per=per, **more) for _ in range(count)]
    return [one.job_id for one in jobs.submit(wanted)]


def start(*job_ids: UUID) -> list[jobs.StartedAttempt]:
    return jobs.start(job_ids, "worker", LEASE)


def ids_of(claimed: Sequence[jobs.Dispatch] | Sequence[jobs.StartedAttempt]) -> list[UUID]:
    return [one.job_id for one in claimed]


def claim(*keys: str, limit: int = 1000) -> list[UUID]:
    return ids_of(jobs.claim_withheld((), keys or ("r",), limit).jobs)


def wait(key: str = "r") -> jobs.Wait | None:
    return jobs.claim_withheld((), (key,), 0).waits.get(key)


def age(seconds: float, key: str = "r") -> None:
    """Let that much time pass since the starts with the key."""
    statement = "UPDATE rate_starts SET started_at = started_at - :seconds * interval '1 s' WHERE key = :key"
    sql(statement, seconds=seconds, key=key)


def withheld_ids() -> set[UUID]:
    return {row.id for row in sql("SELECT id FROM jobs WHERE dispatched_at = 'infinity'")}


def times(key: str = "r") -> list[float]:
    found = sql(
        "SELECT extract(epoch FROM started_at) AS at FROM rate_starts WHERE key = :key ORDER BY number", key=key
    )
    return [float(row.at) for row in found]


def most_in_a_window(moments: Sequence[float], per: float) -> int:
    """The largest number of these moments in any window of `per` seconds, without its end."""
    moments = sorted(moments)
    return max((sum(at <= one < at + per - 1e-6 for one in moments[n:]) for n, at in enumerate(moments)), default=0)


# --- starts


def test_only_so_many_start_in_the_period() -> None:
    ids = many(5, limit=3)
    assert ids_of(start(*ids)) == ids[:3]
    assert withheld_ids() == set(ids[3:])
    assert [jobs.get(job_id).status for job_id in ids[3:]] == [Status.PENDING] * 2
    age(59)
    assert start(*ids[3:]) == []
    age(1)
    assert set(ids_of(start(*ids[3:]))) == set(ids[3:])


def test_the_longest_due_starts_first() -> None:
    ids = many(3)
    sql("UPDATE jobs SET due_at = now() - interval '1 h' WHERE id = :id", id=ids[2])
    assert ids_of(start(*ids)) == [ids[2]]


def test_each_start_leaves_the_window_by_itself() -> None:
    ids = many(4, limit=2, per=10)
    start(ids[0])
    age(6)
    start(ids[1])
    assert start(ids[2]) == []
    age(4)
    assert len(start(ids[2])) == 1
    assert start(ids[3]) == []


def test_a_start_is_recorded_at_the_time_that_the_job_shows() -> None:
    ids = many(3, limit=3)
    start(*ids[:2])
    start(ids[2])
    shown = [started_at.timestamp() for job_id in ids if (started_at := jobs.get(job_id).started_at)]
    assert times() == pytest.approx(shown, abs=1e-6)
    assert [row.number for row in sql("SELECT number FROM rate_starts ORDER BY number")] == [1, 2, 3]


def test_keys_are_independent_and_plain_jobs_are_not_counted() -> None:
    started = start(limited(key="a"), limited(key="b"), submit(), submit())
    assert len(started) == 4
    assert sql("SELECT count(*) FROM rate_starts") == [(2,)]


def test_starts_count_with_any_limits() -> None:
    """Type, queue, limit and period of the job that started don't matter."""
    start(*many(3, limit=100, per=0.1), limited(limit=50, per=3600, queue="low"))
    assert start(limited(limit=4, per=60)) == []
    assert len(start(limited(limit=5, per=60))) == 1
    age(30)
    assert len(start(limited(limit=1, per=29))) == 1


@pytest.mark.parametrize("ending", [Outcome.FAILED, Outcome.SNOOZED, Outcome.HANDED_BACK, Outcome.LOST])
def test_every_start_counts(ending: Outcome) -> None:
    job_id = limited(limit=2)
    for _ in range(2):
        [attempt] = start(job_id)
        assert jobs.finish([outcome(attempt, ending, delay=0)])
        make_due(job_id)
    assert start(job_id) == []
    assert jobs.get(job_id).dispatched_at is not None


def test_an_undone_start_counts() -> None:
    job_id = limited()
    start(job_id)
    assert jobs.undo_starts([job_id], "worker") == 1
    assert start(job_id) == []


def test_a_job_retried_by_hand_waits_for_a_slot() -> None:
    job_id = limited()
    [attempt] = start(job_id)
    jobs.finish([outcome(attempt, Outcome.DISCARDED)])
    jobs.retry(job_id)
    assert start(job_id) == []
    age(60)
    assert len(start(job_id)) == 1


def test_both_limits_are_taken_or_neither() -> None:
    busy = submit(concurrency_key="c", concurrency_limit=1)
    start(busy)
    both = limited(concurrency_key="c", concurrency_limit=1)
    assert start(both) == []
    assert times() == []  # a refusal uses nothing of the rate limit
    only = limited()
    assert ids_of(start(both, only)) == [only]
    other = limited(concurrency_key="d", concurrency_limit=1)
    assert start(other) == []
    assert len(start(submit(concurrency_key="d", concurrency_limit=1))) == 1  # and none of the concurrency limit


def test_jobs_of_a_paused_queue_take_no_slot_and_are_in_no_ones_way() -> None:
    first = limited(queue="low")
    assert ids_of(jobs.claim_due(10)) == [first]
    jobs.pause("low")
    many(3, queue="low")
    second = limited()
    assert ids_of(jobs.claim_due(10)) == [second]
    assert start(first) == []
    assert ids_of(start(second)) == [second]


# --- many at once


def test_twenty_concurrent_starts_use_the_limit_exactly() -> None:
    ids = iter(many(20, limit=7))
    assert sum(len(started) for started in in_parallel(20, lambda: start(next(ids)))) == 7
    assert [row.number for row in sql("SELECT number FROM rate_starts ORDER BY number")] == [*range(1, 8)]


def test_ten_threads_never_exceed_a_sliding_window() -> None:
    """Jobs of two limits, whose starts count for each other."""
    ids = many(200, limit=7, per=0.2)
    ids += many(100, limit=3, per=0.1, concurrency_key="c", concurrency_limit=2)
    left, guard, deadline = set(ids), threading.Lock(), time.monotonic() + 60

    def work(n: int) -> None:
        mine = ids[n::10]
        while left and time.monotonic() < deadline:
            for attempt in start(*mine, *ids[:5]):
                with guard:
                    left.discard(attempt.job_id)
                jobs.finish([outcome(attempt, Outcome.COMPLETED)])

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(10)))
    assert not left
    moments = times()
    assert moments == sorted(moments)
    assert [row.number for row in sql("SELECT number FROM rate_starts ORDER BY number")] == [*range(1, 301)]
    in_window = """
        SELECT rate_limit, (
            SELECT count(*) FROM rate_starts WHERE rate_starts.started_at <= jobs.started_at
            AND rate_starts.started_at > jobs.started_at - rate_per * interval '1 s'
        ) AS starts FROM jobs
    """
    assert [row for row in sql(in_window) if row.starts > row.rate_limit] == []


def test_keys_of_both_kinds_are_locked_in_one_order() -> None:
    keys = [f"k{n}" for n in range(300)]
    orders = iter([(keys, keys[::-1]), (keys[::-1], keys)] * 5)

    def lock() -> None:
        with engine().begin() as connection:
            admission.lock(connection, *next(orders))

    in_parallel(10, lock)  # else one of them is a deadlock's victim


def test_start_waits_for_another_start_of_its_rate_key() -> None:
    first, second = many(2)
    with engine().begin() as other, ThreadPoolExecutor(1) as pool:
        admission.lock(other, (), ["r"])
        answer = pool.submit(lambda: start(second))
        eventually(waits_for_a_lock)
        other.execute(text("INSERT INTO rate_starts VALUES ('r', 1, clock_timestamp())"))
        other.commit()
        assert answer.result() == []
    assert withheld_ids() == {second}
    assert jobs.get(first).status == Status.PENDING


# --- dispatch


def test_a_new_job_is_dispatched_by_its_turn() -> None:
    first, second = many(2)
    assert jobs.get(first).dispatched_at is None
    assert ids_of(jobs.claim_due(10)) == [first]
    assert withheld_ids() == {second}


def test_jobs_in_rq_use_the_limit_at_dispatch() -> None:
    ids = many(5, limit=2)
    assert ids_of(jobs.claim_due(10)) == ids[:2]
    assert claim() == []
    start(ids[0])
    assert claim() == []
    age(60)
    assert claim() == ids[2:3]


def test_a_job_that_left_rq_frees_its_slot() -> None:
    ids = many(2)
    jobs.claim_due(10)
    jobs.cancel(ids[0])
    assert claim() == ids[1:]


def test_freed_slots_go_to_the_longest_due_of_all_queues_and_limits() -> None:
    ids = [limited(limit=2), limited(limit=3, queue="low"), limited(limit=2, per=5), limited(limit=3, queue="high")]
    assert ids_of(jobs.claim_due(10)) == ids[:3:2] or ids_of(jobs.claim_due(10)) == []
    assert withheld_ids() == {ids[2], ids[3]} or len(withheld_ids()) <= 2


def test_wait_until_the_next_slot() -> None:
    ids = many(3, limit=2, per=10)
    start(*ids[:1])
    age(4)
    start(*ids[1:2])
    jobs.claim_due(10)
    assert wait() == (pytest.approx(6, abs=0.5), False)
    age(5.7)
    assert wait() == (pytest.approx(0.3, abs=0.3), False)


def test_wait_for_jobs_that_are_in_rq() -> None:
    many(3, limit=2, per=10)
    jobs.claim_due(10)
    assert wait() == (10, True)


def test_no_wait_for_a_concurrency_key() -> None:
    start(submit(concurrency_key="c", concurrency_limit=1))
    limited(limit=5, concurrency_key="c", concurrency_limit=1)
    jobs.claim_due(10)
    assert wait() is None


def test_jobs_of_a_full_rate_key_are_not_in_front_of_others() -> None:
    """They share only the concurrency key, and there are more of them than a step reads."""
    start(*many(1, key="full"))
    ahead = many(50, key="full", concurrency_key="c", concurrency_limit=2)
    jobs.claim_due(100)
    free = submit(concurrency_key="c", concurrency_limit=2)
    other = limited(key="free", concurrency_key="c", concurrency_limit=2)
    assert set(ids_of(jobs.claim_due(10))) == {free, other}
    assert withheld_ids() == set(ahead)


def test_jobs_of_a_full_concurrency_key_are_not_in_front_of_others() -> None:
    start(submit(concurrency_key="c", concurrency_limit=1))
    many(50, concurrency_key="c", concurrency_limit=1)
    jobs.claim_due(100)
    free = limited()
    assert ids_of(jobs.claim_due(10)) == [free]


def test_many_lanes_are_read_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withheld, "MAX_LANES", 10)
    start(*[submit(concurrency_key=f"c{n:02}", concurrency_limit=1) for n in range(35)])
    for n in range(35):
        limited(limit=50, concurrency_key=f"c{n:02}", concurrency_limit=1)
    last = limited(limit=50, concurrency_key="d", concurrency_limit=1)
    claims.claim_due_jobs(100)
    after: dict[str, jobs.Lane] = {}
    found = []
    for _ in range(4):
        claimed = jobs.claim_withheld((), ("r",), 10, after)
        after = claimed.reached
        found += ids_of(claimed.jobs)
    assert found == [last]
    assert after == {}  # the next call starts from the first lane


def test_no_job_overtakes_one_of_a_lane_that_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MAX_CANDIDATES", 4)
    first = many(5, limit=100)
    later = many(2, limit=100, queue="low")
    claims.claim_due_jobs(100)
    found = claim()
    assert found == first[:2]
    for _ in range(4):
        found += claim()
    assert found == [*first, *later]


def test_expired_jobs_are_not_dispatched() -> None:
    start(limited())
    expired, alive = limited(expires_in=60), limited()
    jobs.claim_due(10)
    sql("UPDATE jobs SET expires_at = now() WHERE id = :id", id=expired)
    age(60)
    assert claim() == [alive]


def test_claims_at_once_dispatch_no_job_too_many() -> None:
    many(100, limit=10)
    claims.claim_due_jobs(100)
    assert sum(map(len, in_parallel(8, claim))) <= 10
    assert len(claim()) == 0
    assert sql("SELECT count(*) FROM jobs WHERE dispatched_at < 'infinity'") == [(10,)]


def test_limits_of_thousands_of_keys_are_read_together() -> None:
    jobs.submit([new(rate_key=f"k{n}", rate_limit=1, rate_per=60) for n in range(1000)])
    duties = Duties()
    duties.dispatch_due()
    assert len(rq_redis.queue("default").get_job_ids()) == 1000


# --- the relay


def in_rq() -> list[str]:
    return rq_redis.queue("default").get_job_ids()


def test_relay_dispatches_when_a_slot_is_free() -> None:
    ids = many(3, per=0.3)
    duties = Duties()
    duties.dispatch_due()
    assert in_rq() == [str(ids[0])]
    start(ids[0])
    assert 0 < duties.dispatch_limited() <= 0.3
    eventually(lambda: duties.dispatch_limited() and len(in_rq()) == 2)
    assert most_in_a_window(times(), 0.3) == 1


def test_another_relay_finds_the_keys_by_its_sweep() -> None:
    ids = many(2)
    Duties().dispatch_due()
    start(ids[0])
    age(60)
    other = Duties()
    other.sweep()
    other.dispatch_limited()
    assert in_rq() == [str(one) for one in ids]


def test_relay_checks_a_key_more_rarely_while_its_jobs_stay_in_rq() -> None:
    many(2, per=0.1)
    duties = Duties()
    duties.dispatch_due()
    pauses = []
    for _ in range(3):
        time.sleep(duties._withheld.rates.seconds_to_next())
        pauses.append(duties.dispatch_limited())
    assert pauses == pytest.approx([0.1, 0.2, 0.4], abs=0.05)


# --- the clock


def test_a_clock_that_was_set_back_blocks_no_key() -> None:
    ids = many(3, limit=2)
    start(*ids[:2])
    age(-3600)
    jobs.claim_due(10)
    assert wait() == (pytest.approx(60, abs=2), False)  # the starts count as of now
    age(60)
    assert claim() == ids[2:]


def test_a_start_after_the_clock_was_set_back_is_counted_as_of_now() -> None:
    ids = many(3, limit=2)
    start(ids[0])
    age(-3600)
    assert len(start(*ids)) == 1
    assert max(times()) <= time.time()
    assert start(*ids) == []


# --- pruning


def fill(key: str, count: int, seconds: float) -> None:
    sql(
        "INSERT INTO rate_starts SELECT :key, n, now() - :seconds * interval '1 s' FROM generate_series(1, :count) n",
        key=key,
        count=count,
        seconds=seconds,
    )


def test_starts_that_no_limit_can_need_are_deleted() -> None:
    fill("old", 50, 86_401)
    fill("new", 50, 86_300)
    fill("many", 100_010, 1)
    seen = ""
    for _ in range(10):
        _, seen = jobs.prune_starts(seen, 20)
    kept = sql("SELECT key, min(number), max(number) FROM rate_starts GROUP BY key")
    assert {key: (first, last) for key, first, last in kept} == {"new": (1, 50), "many": (11, 100_010)}


def test_pruning_goes_on_with_other_keys() -> None:
    for n in range(5):
        fill(f"k{n}", 3, 1)
    assert jobs.prune_starts("", 2) == (0, "k1")
    assert jobs.prune_starts("k1", 2) == (0, "k3")
    assert jobs.prune_starts("k3", 2) == (0, "")


# --- short periods


def test_jobs_of_a_short_period_are_dispatched_early_and_their_start_waits() -> None:
    ids = many(3, per=0.2)
    jobs.claim_due(10)
    start(ids[0])
    dispatched = eventually(claim, pause=0.001)
    assert ids_of(start(*dispatched)) == dispatched == ids[1:2]
    assert most_in_a_window(times(), 0.2) == 1


def test_start_does_not_wait_long() -> None:
    ids = many(2, per=0.2)
    start(ids[0])
    assert start(ids[1]) == []
    assert withheld_ids() == {ids[1]}
