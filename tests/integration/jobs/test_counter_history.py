"""The history of the counters: no count is lost or counted twice while rows are merged, moved and deleted."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db.engine import engine
from jobsvc.jobs import Numbers
from jobsvc.states import Outcome
from tests.integration.factories import LEASE, lapse, make_due, new, outcome, sql, started, submit
from tests.integration.locking import waits_for_a_lock
from tests.support.service import eventually

HOUR = 3600


def numbers(window: int = HOUR, step: int = 60, **which: Any) -> Numbers:
    """The numbers of all jobs together in the whole window."""
    [series] = jobs.read_history(window, step, by=(), **which).series
    return series.whole


def same(expected: Numbers) -> Any:
    """What equals these numbers, but for the rounding of sums in another order."""
    return pytest.approx(flat(expected))


def flat(found: Numbers) -> dict[str, float | None]:
    counts = {name: getattr(found, name) for name in ("accepted", "started", "completed", "failed", "retried")}
    lengths = {(name, kind): length for name in ("wait", "run") for kind, length in vars(getattr(found, name)).items()}
    return {**counts, **{"_".join(names): length for names, length in lengths.items()}}


def fold() -> None:
    jobs.fold_counters(at=0)


def age(**how: int) -> None:
    """Let the time pass, for all that was counted."""
    for table in ("tallies", "counter_history"):
        sql(f"UPDATE {table} SET minute = minute - :age", age=timedelta(**how))


def run(count: int = 1) -> None:
    for _ in range(count):
        jobs.finish([outcome(started(), Outcome.COMPLETED)])


def rows() -> int:
    [(found,)] = sql("SELECT count(*) FROM counter_history")
    return int(found)


def test_nothing_counted_is_no_series() -> None:
    assert jobs.read_history(HOUR, 60).series == jobs.read_history(HOUR, 60, by=()).series == []


def test_current_step_is_the_last_one() -> None:
    run()
    found = jobs.read_history(HOUR, 60)
    [series] = found.series
    assert (series.type, series.queue, len(series.steps)) == ("TEST_JOB", "default", 60)
    assert found.end - found.start == timedelta(hours=1)
    assert found.start < datetime.now(UTC) <= found.end + timedelta(minutes=1)
    recent = series.steps[-2:]  # a minute may have begun in between
    assert sum(one.accepted for one in recent) == sum(one.completed for one in recent) == 1
    assert found.times[0] == found.start
    assert found.times[-1] == found.end - timedelta(minutes=1)


def test_each_event_is_counted() -> None:
    first = started(retry_intervals=[1.0, 1.0])
    jobs.finish([outcome(first, Outcome.FAILED)])
    make_due(first.job_id)
    [second] = jobs.start([first.job_id], "worker", LEASE)
    lapse(second.job_id)
    jobs.recover_lapsed(10, 0)
    make_due(first.job_id)
    [third] = jobs.start([first.job_id], "worker", LEASE)
    jobs.finish([outcome(third, Outcome.FAILED)])
    jobs.retry(first.job_id)
    submit(expires_in=0.001)
    jobs.expire(10)
    jobs.cancel(submit())
    for _ in range(2):
        found = numbers()
        counts = (found.accepted, found.started, found.completed, found.failed, found.retried)
        assert counts == (3, 3, 0, 2, 3)
        fold()


@pytest.mark.parametrize(
    ("by", "labels"),
    [
        (("type", "queue"), [("A", "x"), ("A", "y"), ("B", "x")]),
        (("type",), [("A", None), ("B", None)]),
        (("queue",), [(None, "x"), (None, "y")]),
        ((), [(None, None)]),
    ],
)
def test_series_are_by_labels(by: Any, labels: Any) -> None:
    jobs.submit([new(type=type_, queue=queue) for type_, queue in (("B", "x"), ("A", "y"), ("A", "x"), ("A", "x"))])
    for _ in range(2):
        found = jobs.read_history(HOUR, 60, by=by).series
        assert [(one.type, one.queue) for one in found] == labels
        assert sum(one.whole.accepted for one in found) == 4
        assert numbers(type_="A").accepted == 3
        assert numbers(queue="x").accepted == 3
        assert numbers(type_="A", queue="x").accepted == 2
        assert jobs.read_history(HOUR, 60, type_="C").series == []
        fold()


def test_percentiles_are_interpolated_and_merged() -> None:
    for type_, waits in (("A", (0.2, 0.2, 0.2)), ("B", (7, 20_000))):
        for wait in waits:
            job_id = submit(type=type_)
            sql("UPDATE jobs SET due_at = now() - make_interval(secs => :wait) WHERE id = :id", wait=wait, id=job_id)
            jobs.start([job_id], "worker", LEASE)
    for _ in range(2):
        whole = numbers().wait
        assert whole.p50 == pytest.approx(0.1 + 0.15 * 2.5 / 3)
        assert whole.p95 == 3600  # above the last bound
        assert whole.mean == pytest.approx((0.6 + 7 + 20_000) / 5, rel=0.01)
        assert numbers(type_="B").wait.p50 == pytest.approx(10)
        assert numbers().run == jobs.Durations(None, None, None)
        fold()


def test_totals_and_history_are_equal_at_all_times() -> None:
    run(3)
    fold()
    run(2)
    assert numbers().completed == 5
    jobs.compact_history()
    fold()
    assert numbers().completed == 5
    assert sum(row.number for row in jobs.read_counters() if row.event == "accepted") == 5


def test_rows_of_one_minute_are_merged() -> None:
    for _ in range(3):
        run()
        fold()
    age(minutes=5)
    before = numbers()
    assert jobs.compact_history() >= 2
    assert jobs.compact_history() == 0
    assert rows() <= 2  # a minute may have begun in between
    assert flat(numbers()) == same(before)


def test_two_hours_are_kept_by_the_minute() -> None:
    run()
    fold()
    age(seconds=2 * HOUR - 120)
    jobs.compact_history()
    [series] = jobs.read_history(2 * HOUR, 60).series
    assert sum(one.completed for one in series.steps[:5]) == 1


def test_older_rows_are_merged_to_15_minutes() -> None:
    for _ in range(40):
        run()
        fold()
        age(minutes=1)
    assert rows() == 40
    age(hours=3)
    before = numbers(86400, 900)
    jobs.compact_history()
    assert rows() <= 4
    assert flat(numbers(86400, 900)) == same(before)
    assert before.completed == 40
    assert sql("SELECT count(*) FROM counter_history WHERE minute <> date_bin('15 min', minute, 'epoch')") == [(0,)]


def test_rows_are_deleted_after_a_week() -> None:
    run()
    fold()
    age(days=7, minutes=-30)
    jobs.compact_history()
    assert numbers(7 * 86400, 900).completed == 1
    age(hours=1)
    jobs.compact_history()
    assert rows() == 0
    assert [row.number for row in jobs.read_counters() if row.event == "accepted"] == [1]


def test_old_release_loses_only_history() -> None:
    """An earlier version inserts rows without a minute, and merges all rows into rows without one."""
    run(2)
    sql("INSERT INTO tallies (event, type, queue, number) VALUES ('accepted', 'TEST_JOB', 'default', 3)")
    assert numbers().accepted == 2
    fold()
    assert numbers().accepted == 2
    assert sum(row.number for row in jobs.read_counters() if row.event == "accepted") == 5
    run()
    sql("UPDATE tallies SET minute = null")  # its merge
    fold()
    assert numbers().accepted == 2
    assert sum(row.number for row in jobs.read_counters() if row.event == "accepted") == 6


def test_no_count_is_lost_or_doubled_while_many_count_merge_and_read() -> None:
    seen: list[tuple[int, int]] = []
    over = threading.Event()

    def count() -> None:
        for number in range(20):
            jobs.submit([new(), new(type=f"T{number}")])

    def repeat(work: Any) -> None:
        while not over.is_set():
            work()

    def check() -> None:
        total = sum(row.number for row in jobs.read_counters() if row.event == "accepted")
        series = jobs.read_history(HOUR, 60, by=()).series
        seen.append((total, series[0].whole.accepted if series else 0))

    counters = [threading.Thread(target=count) for _ in range(4)]
    works = (fold, fold, jobs.compact_history, jobs.compact_history, check)
    others = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in counters + others:
        thread.start()
    for thread in counters:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    flat = [number for pair in seen for number in pair]  # each was read after the one before
    assert flat == sorted(flat)
    check()
    assert seen[-1] == (160, 160)
    fold()
    jobs.compact_history()
    check()
    assert seen[-1] == (160, 160)


@pytest.mark.parametrize(
    ("table", "work"), [("tallies", lambda: jobs.fold_counters(at=0)), ("counter_history", jobs.compact_history)]
)
def test_rows_that_another_process_merges_are_left_to_it(table: str, work: Callable[[], int]) -> None:
    jobs.submit([new(type=name) for name in "AB"])
    if table == "counter_history":
        for _ in range(2):
            fold()
            jobs.submit([new(type=name) for name in "AB"])
        fold()
        age(minutes=5)
    with ThreadPoolExecutor(1) as pool, engine().begin() as other:
        other.execute(text(f"SELECT FROM {table} WHERE type = 'A' FOR UPDATE"))
        found = pool.submit(work)
        assert eventually(lambda: found.done() or waits_for_a_lock())
        was_waiting = not found.done()
        other.rollback()
        assert not was_waiting
        assert found.result() > 0
    assert work() > 0
    assert numbers(type_="A") == numbers(type_="B")


@pytest.mark.parametrize(
    ("window", "step", "count", "unit"),
    [
        (3600, 60, 60, 60),
        (7200, 60, 120, 60),
        (100, 60, 2, 60),
        (1, 60, 1, 60),
        (60, 7200, 1, 60),
        (7200, 4020, 1, 60),
        (7201, 900, 9, 900),
        (604800, 900, 672, 900),
        (604800, 345600, 1, 900),
    ],
)
def test_window_is_covered_by_whole_steps(window: int, step: int, count: int, unit: int) -> None:
    found = jobs.read_history(window, step)
    assert len(found.times) == count
    assert found.start.timestamp() % step == found.end.timestamp() % step == 0
    assert jobs.step_unit(window) == unit


@pytest.mark.parametrize(("window", "step"), [(0, 60), (3600, 0), (3600, 90), (7201, 60), (604801, 900), (3600, 7260)])
def test_unsuitable_steps_are_refused(window: int, step: int) -> None:
    with pytest.raises(ValueError, match="no steps"):
        jobs.read_history(window, step)
