"""What the terminal shows: the latest jobs, and counts of jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import false, select

from jobsvc import jobs
from jobsvc.cli import poll
from jobsvc.db.engine import transaction
from jobsvc.db.models import Job
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.relay import Relay
from jobsvc.jobs import Filter, summaries
from jobsvc.states import Outcome, Status
from tests.integration.factories import outcome, started, submit
from tests.integration.jobs.test_queries import Explain, fill


def ids(found: list[Any]) -> list[UUID]:
    return [one.id for one in found]


def test_latest_jobs_are_new_running_or_followed() -> None:
    followed, _, runs, *newest = submit(), submit(), started().job_id, submit(), submit()
    submit(type="WEBHOOK")
    assert ids(jobs.latest(2)) == [*reversed(newest), runs]
    assert ids(jobs.latest(2, [followed, runs])) == [*reversed(newest), runs, followed]


def test_follower_sees_each_change_once_however_many_jobs_are_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poll, "WINDOW", 2)
    monkeypatch.setattr(poll, "POLL_SECONDS", 0)
    unseen, old, waits = submit(), started(), submit()
    jobs.cancel(unseen)
    polls = poll.polls()

    def reported() -> list[tuple[UUID, str | None, str]]:
        return [(job.id, before.status if before else None, job.status) for before, job in next(polls)[1]]

    assert reported() == [(waits, None, "PENDING"), (old.job_id, None, "PROCESSING")]
    newer = [submit(), submit()]
    assert reported() == [(job_id, None, "PENDING") for job_id in reversed(newer)]
    assert reported() == []
    jobs.finish([outcome(old, Outcome.COMPLETED)])
    jobs.cancel(waits)
    assert reported() == [(waits, "PENDING", "CANCELLED"), (old.job_id, "PROCESSING", "COMPLETED")]
    for job_id in newer:
        jobs.cancel(job_id)
    for job_id in (*newer, old.job_id, waits):
        jobs.remove(job_id)
    assert reported() == []  # though one that ended before is the newest now


def test_count_of_matching_jobs_stops_at_its_limit() -> None:
    for _ in range(3):
        submit(tags=["x"])
    assert jobs.count_cancellable(Filter(tags=["x"]), 10) == 3
    assert jobs.count_cancellable(Filter(tags=["x"]), 2) == 2
    assert jobs.count_cancellable(Filter([Status.FAILED]), 10) == 0
    assert jobs.count_retryable(Filter(tags=["x"]), 10) == 0


def test_settle_on_a_stopped_relay_does_the_pending_work() -> None:
    relay = Relay().start()
    relay.stop()
    assert not relay._thread.is_alive()
    job_id = submit()
    jobs.cancel(job_id)
    relay.dispatch([jobs.retry(job_id)[1]])
    relay.finish_pending()
    assert rq_redis.queue("default").get_job_ids() == [str(job_id)]
    jobs.cancel(job_id)
    relay.withdraw([job_id])
    relay.finish_pending()
    assert rq_redis.queue("default").get_job_ids() == []


def test_snapshot_reads_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of 8 KiB, of a table of many jobs of which few are not completed."""
    plans: list[dict[str, Any]] = []

    @contextmanager
    def explaining() -> Iterator[Any]:
        def execute(statement: Any) -> Any:
            plans.append(connection.scalar(Explain(statement))[0]["Plan"])  # type: ignore[arg-type]
            return connection.execute(select(Job.id).where(false()))

        with transaction() as connection:
            yield SimpleNamespace(execute=execute)

    assert fill() > 2500
    followed = [job.id for job in jobs.latest(100)]
    monkeypatch.setattr(summaries, "transaction", explaining)
    jobs.latest(50, followed)
    [latest] = (plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in plans)
    assert latest < 600  # three for an id
