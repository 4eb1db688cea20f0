"""The counters of /metrics are exact over many processes, before and after folding."""

import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jobsvc import jobs
from jobsvc.api.metrics import registry
from jobsvc.db.engine import transaction
from jobsvc.handlers.builtin import test_job  # noqa: F401  # registers TEST_JOB
from jobsvc.jobs import BOUNDS
from jobsvc.jobs.submit import store
from jobsvc.states import Outcome
from tests.integration.factories import LEASE, lapse, make_due, new, outcome, sql, started, submit

SERIES = {"type": "TEST_JOB", "queue": "default"}


def scrape() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by its name and labels, as a Prometheus would read them."""
    families = text_string_to_metric_families(generate_latest(registry()).decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(name: str, **labels: str) -> float:
    return scrape()[f"jobsvc_{name}", tuple(sorted(labels.items()))]


def finished(status: str) -> float:
    return value("jobs_finished_total", status=status, **SERIES)


def test_all_counters_start_at_zero() -> None:
    parts = ("_total", "_bucket", "_count", "_sum")
    assert {number for (name, _), number in scrape().items() if name.endswith(parts)} == {0}


def test_completed_job_is_counted() -> None:
    jobs.finish([outcome(started(), Outcome.COMPLETED)])
    assert value("jobs_accepted_total", **SERIES) == value("jobs_started_total", **SERIES) == 1
    assert finished("COMPLETED") == 1
    assert value("job_wait_seconds_count", **SERIES) == value("job_run_seconds_count", **SERIES) == 1
    assert value("jobs_retried_total", **SERIES) == value("jobs_recovered_total", **SERIES) == 0


def test_retry_and_lost_attempt_are_counted() -> None:
    first = started(retry_intervals=[1.0, 1.0])
    jobs.finish([outcome(first, Outcome.FAILED)])
    make_due(first.job_id)
    [second] = jobs.start([first.job_id], "worker", LEASE)
    lapse(second.job_id)
    assert jobs.recover_lapsed(10, 0) == 1
    make_due(first.job_id)
    [third] = jobs.start([first.job_id], "worker", LEASE)
    jobs.finish([outcome(second, Outcome.COMPLETED)])  # too late to count
    jobs.finish([outcome(third, Outcome.FAILED)])
    assert value("jobs_started_total", **SERIES) == 3
    assert value("jobs_retried_total", **SERIES) == 2
    assert value("jobs_recovered_total", **SERIES) == 1
    assert value("job_run_seconds_count", **SERIES) == 2
    assert (finished("FAILED"), finished("COMPLETED")) == (1, 0)


def test_other_outcomes_are_counted() -> None:
    cancelled, expired, snoozed = submit(), submit(expires_in=0.001), started()
    jobs.cancel(cancelled)
    jobs.retry(cancelled)
    assert jobs.expire(10) == 1
    jobs.finish([outcome(snoozed, Outcome.SNOOZED, delay=60)])
    running = started()
    jobs.cancel(running.job_id)
    jobs.finish([outcome(running, Outcome.CANCELLED)])
    assert (finished("CANCELLED"), finished("FAILED"), finished("COMPLETED")) == (2, 1, 0)
    assert value("jobs_retried_total", **SERIES) == 1
    assert expired


def test_taken_unique_key_and_rollback_are_not_counted() -> None:
    jobs.submit([new(unique_key="k"), new(unique_key="k")])
    with suppress(ZeroDivisionError), transaction() as connection:
        store(connection, [new()])
        raise ZeroDivisionError
    assert value("jobs_accepted_total", **SERIES) == 1


def test_durations_are_counted_in_buckets() -> None:
    job_id = submit()
    sql("UPDATE jobs SET due_at = now() - interval '7 s' WHERE id = :id", id=job_id)
    [start] = jobs.start([job_id], "worker", LEASE)
    sql("UPDATE jobs SET started_at = now() - interval '2 h' WHERE id = :id", id=job_id)
    jobs.finish([outcome(start, Outcome.COMPLETED)])
    for kind, seconds in (("wait", 7), ("run", 7200)):
        for bound in BOUNDS:
            le = "+Inf" if bound == float("inf") else str(float(bound))
            assert value(f"job_{kind}_seconds_bucket", le=le, **SERIES) == (bound > seconds), (kind, le)
        assert seconds <= value(f"job_{kind}_seconds_sum", **SERIES) < seconds + 1


def test_number_of_labels_is_bounded() -> None:
    jobs.submit([new(type=f"GONE_{number}", queue=f"gone-{number}") for number in range(3)])
    assert value("jobs_accepted_total", type="other", queue="other") == 3
    assert value("queue_jobs", queue="other", status="PENDING") == 3


def test_gauges_show_queues_and_relay_lag() -> None:
    submit(delay=60)
    running, waiting = started(), submit()
    sql("UPDATE jobs SET due_at = now() - interval '90 s', dispatched_at = null WHERE id = :id", id=waiting)
    assert value("queue_jobs", queue="default", status="PENDING") == 1
    assert value("queue_jobs", queue="default", status="SCHEDULED") == 1
    assert value("queue_jobs", queue="default", status="PROCESSING") == 1
    assert value("queue_jobs", queue="high", status="PENDING") == value("queue_oldest_seconds", queue="high") == 0
    assert 90 <= value("queue_oldest_seconds", queue="default") < 150
    assert 90 <= value("relay_lag_seconds") < 150
    sql("UPDATE jobs SET dispatched_at = now() WHERE id = :id", id=waiting)
    assert value("relay_lag_seconds") == 0
    assert running


def test_folding_keeps_every_count() -> None:
    for _ in range(5):
        jobs.finish([outcome(started(), Outcome.COMPLETED)])
    before = scrape()
    assert jobs.fold_counters() == 0
    assert jobs.fold_counters(at=10) == 15
    [(rows,)] = sql("SELECT count(*) FROM tallies")
    assert rows < 15
    after = scrape()
    gauges = {key for key in before if "queue_" in key[0]}
    assert {k: v for k, v in after.items() if k not in gauges} == pytest.approx(
        {k: v for k, v in before.items() if k not in gauges}
    )


def test_counters_never_fall_while_many_count_and_fold() -> None:
    seen: list[float] = []
    over = threading.Event()

    def count() -> None:
        for _ in range(20):
            jobs.submit([new(), new()])

    def fold() -> None:
        while not over.is_set():
            jobs.fold_counters(at=2)

    def check() -> None:
        while not over.is_set():
            seen.append(sum(row.number for row in _accepted()))

    counters = [threading.Thread(target=count) for _ in range(4)]
    others = [threading.Thread(target=work) for work in (fold, fold, check)]
    for thread in counters + others:
        thread.start()
    for thread in counters:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    assert seen == sorted(seen)
    assert value("jobs_accepted_total", **SERIES) == 160


def _accepted() -> list[Any]:
    return [row for row in jobs.read_counters() if row.event == "accepted"]


def test_metric_names_and_types_follow_the_conventions() -> None:
    families = {one.name: one for one in text_string_to_metric_families(generate_latest(registry()).decode())}
    kinds = Counter(one.type for one in families.values())
    assert kinds == {"counter": 5, "histogram": 2, "gauge": 9}
    assert all(one.documentation.endswith(".") for one in families.values())
