"""Schedules: one job a tick with many relays, and none before its time."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobsvc import jobs
from jobsvc.db.engine import transaction
from jobsvc.errors import InvalidInput
from jobsvc.jobs import registration, schedules
from jobsvc.jobs.schedules import NewSchedule
from tests.integration.factories import new, sql


def put(name: str = "nightly", **changes: Any) -> bool:
    """Store a schedule; whether it is a new one."""
    job = changes.pop("new_job", None) or new(tags=[name])
    fields = {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "enabled": True, "job": {"type": "TEST_JOB"}, **changes}
    return schedules.put(NewSchedule(name, new_job=job, **fields))[1]


def make_due(name: str = "nightly", missed: str = "1 second") -> None:
    """Let the time pass until the schedule's tick was `missed` ago."""
    sql(
        "UPDATE schedules SET next_run_at = now() - CAST(:missed AS interval) WHERE name = :name",
        name=name,
        missed=missed,
    )


def jobs_of(name: str = "nightly") -> list[Any]:
    return [row.id for row in sql("SELECT id FROM jobs WHERE :name = ANY(tags) ORDER BY id", name=name)]


def test_new_schedule_starts_from_now() -> None:
    assert put() is True
    assert put(cron="30 3 * * *") is False
    assert schedules.get("nightly").cron == "30 3 * * *"
    [row] = sql("SELECT next_run_at > now() AND next_run_at < now() + interval '25 hours' AS is_next FROM schedules")
    assert row.is_next
    assert schedules.tick(10) == []


def test_tick_makes_its_job_and_sets_the_next_time() -> None:
    put()
    make_due()
    [dispatch] = schedules.tick(10)
    assert jobs_of() == [dispatch.job_id]
    assert jobs.get(dispatch.job_id).status == "PENDING"
    schedule = schedules.get("nightly")
    assert schedule.last_job_id == dispatch.job_id
    assert schedule.last_run_at == jobs.get(dispatch.job_id).created_at
    assert schedules.tick(10) == []


@pytest.mark.parametrize("on_conflict", ["return", "replace"])
def test_key_of_an_open_transaction_delays_no_other_schedule(on_conflict: str) -> None:
    registration.register()
    put("taken", new_job=new(tags=["taken"], unique_key="k", on_conflict=on_conflict))
    put("other", new_job=new(tags=["other"], unique_key="l"))
    put("plain")
    for name in ("taken", "other", "plain"):
        make_due(name)
    with ThreadPoolExecutor(1) as pool, transaction() as connection:
        connection.exec_driver_sql("SELECT jobsvc_enqueue('TEST_JOB', '{}', '{\"uniqueKey\": \"k\"}')")
        tick = pool.submit(schedules.tick, 10)
        assert len(tick.result(timeout=15)) == 2
        connection.rollback()
    assert (len(jobs_of("other")), len(jobs_of("plain")), jobs_of("taken")) == (1, 1, [])
    assert schedules.get("taken").last_job_id is None
    make_due("taken")
    assert [dispatch.job_id for dispatch in schedules.tick(10)] == jobs_of("taken")


def test_missed_ticks_make_one_job() -> None:
    put(cron="* * * * *")
    make_due(missed="3 days")
    assert len(schedules.tick(10)) == 1
    [row] = sql("SELECT next_run_at > now() AS is_to_come FROM schedules")
    assert row.is_to_come
    assert len(jobs_of()) == 1


def test_longest_due_schedules_tick_first_up_to_the_limit() -> None:
    for number in range(5):
        put(f"s{number}")
        make_due(f"s{number}", f"{number + 1} minutes")
    assert len(schedules.tick(2)) == 2
    assert jobs_of("s4")
    assert jobs_of("s3")
    assert len(schedules.tick(10)) == 3


def test_concurrent_ticks_make_one_job() -> None:
    names = [f"s{number}" for number in range(20)]
    for name in names:
        put(name)
    rounds, threads = 15, 8
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            sql("UPDATE schedules SET next_run_at = now() - interval '1 hour'")
            start = threading.Barrier(threads)

            def check(_: int, start: threading.Barrier = start) -> int:
                start.wait()
                return len(schedules.tick(7))

            # Others skip rows that one has locked, so later passes find the rest.
            made = sum(pool.map(check, range(threads)))
            assert made + sum(len(schedules.tick(7)) for _ in range(4)) == len(names)
    assert {name: len(jobs_of(name)) for name in names} == dict.fromkeys(names, rounds)


def test_locked_schedule_delays_no_other() -> None:
    for name in ("locked", "free"):
        put(name)
        make_due(name)
    with ThreadPoolExecutor(1) as pool, transaction() as connection:
        connection.exec_driver_sql("SELECT 1 FROM schedules WHERE name = 'locked' FOR UPDATE")
        assert len(pool.submit(schedules.tick, 10).result(timeout=20)) == 1
        assert jobs_of("free")
    assert len(schedules.tick(10)) == 1
    assert jobs_of("locked")


def test_rolled_back_tick_is_made_again() -> None:
    put()
    make_due()
    sql("ALTER TABLE schedules ADD CONSTRAINT stop CHECK (last_job_id IS NULL)")
    try:
        with pytest.raises(Exception, match="stop"):
            schedules.tick(10)
        assert jobs_of() == []
    finally:
        sql("ALTER TABLE schedules DROP CONSTRAINT stop")
    assert len(schedules.tick(10)) == 1
    assert len(jobs_of()) == 1


def test_paused_schedule_makes_no_job_and_resumes_from_now() -> None:
    put(cron="* * * * *")
    make_due()
    put(cron="* * * * *", enabled=False)
    assert schedules.get("nightly").next_run_at is None
    assert schedules.tick(10) == []
    assert schedules.seconds_to_next() is None
    put(cron="* * * * *")
    assert schedules.tick(10) == []
    assert jobs_of() == []
    assert 0 < (schedules.seconds_to_next() or 0) <= 60


def test_unchanged_put_keeps_a_due_tick() -> None:
    put()
    make_due()
    put(new_job=new(tags=["nightly", "newer"]))
    assert len(schedules.tick(10)) == 1
    assert len(jobs_of("newer")) == 1


@pytest.mark.parametrize("change", [{"cron": "1 3 * * *"}, {"timezone": "UTC"}])
def test_put_with_other_times_starts_from_now(change: dict[str, str]) -> None:
    put()
    make_due()
    put(**change)
    assert schedules.tick(10) == []


def test_taken_unique_key_makes_no_second_job() -> None:
    put(new_job=new(tags=["nightly"], unique_key="one"))
    make_due()
    [first] = schedules.tick(10)
    make_due()
    assert schedules.tick(10) == []
    assert jobs_of() == [first.job_id]
    assert schedules.get("nightly").last_job_id == first.job_id
    assert schedules.run("nightly").job_id == first.job_id


def test_manual_run_does_not_move_the_ticks() -> None:
    put(enabled=False)
    job = schedules.run("nightly")
    assert jobs_of() == [job.job_id]
    assert job.dispatch
    schedule = schedules.get("nightly")
    assert (schedule.next_run_at, schedule.last_job_id) == (None, job.job_id)
    put()
    before = schedules.get("nightly").next_run_at
    schedules.run("nightly")
    assert schedules.get("nightly").next_run_at == before


def test_failing_schedule_delays_no_other(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("zone", "job", "fine"):
        put(name)
        make_due(name)
    sql("UPDATE schedules SET timezone = 'Nowhere/Land' WHERE name = 'zone'")
    sql("""UPDATE schedules SET new_job = new_job || '{"later": 1}' WHERE name = 'job'""")
    with caplog.at_level(logging.ERROR, "jobsvc.schedules"):
        assert len(schedules.tick(10)) == 1
    assert [name for name in ("zone", "job") if f"the schedule {name} can't tick" in caplog.text] == ["zone", "job"]
    assert len(jobs_of("fine")) == 1
    [row] = sql("SELECT bool_and(next_run_at > now()) AS all_wait FROM schedules")
    assert row.all_wait
    sql("UPDATE schedules SET timezone = 'UTC', next_run_at = now() WHERE name = 'zone'")
    assert len(schedules.tick(10)) == 1


def test_next_ticks_of_a_schedule() -> None:
    after = datetime(2026, 3, 28, 12, tzinfo=UTC)
    ticks = jobs.next_ticks("30 2 * * *", "Europe/Berlin", count=3, after=after)
    # 02:30 is skipped on the 29th: the tick comes at the jump.
    assert [tick.isoformat() for tick in ticks] == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
        "2026-03-31T02:30:00+02:00",
    ]
    assert len(jobs.next_ticks("@hourly", "UTC")) == 5
    assert jobs.next_ticks("* * * * *", "UTC", count=1)[0] > jobs.current_time() - timedelta(seconds=1)


def test_wrong_schedule_has_no_next_ticks() -> None:
    with pytest.raises(InvalidInput) as wrong:
        jobs.next_ticks("0 0 31 2 *", "Mars/Base")
    assert [(one.pointer, one.detail) for one in wrong.value.problems] == [
        ("/cron", "never ticks: there is no such date"),
        ("/timezone", "there is no time zone 'Mars/Base'; they have names like Europe/Berlin, and UTC"),
    ]
