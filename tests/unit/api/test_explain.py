"""What is said about a job in each situation, and in what order if several reasons hold."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest

from jobsvc.api.explain import explain_situation
from jobsvc.api.explanation import Explanation, ReasonCode, show_moment
from jobsvc.api.redis_view import RedisView
from jobsvc.dispatch.rq_workers import WorkerState
from jobsvc.jobs import MOST_BEFORE, Place, Situation
from jobsvc.jobs.situation import RateSituation
from jobsvc.jobs.slots import Rate, RateUse
from jobsvc.states import WAITING, Outcome, Status

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
JOB, OTHER = UUID(int=1), UUID(int=2)


def situation(**facts: Any) -> Situation:
    """A PENDING job in RQ, due a second ago, with nothing before it, but for these facts."""
    defaults: dict[str, Any] = {
        "now": NOW,
        "job_id": JOB,
        "type": "MAIL",
        "queue": "default",
        "status": Status.PENDING,
        "attempts": 0,
        "max_attempts": 4,
        "due_at": NOW - timedelta(seconds=1),
        "timeout": 180.0,
        "slots": 0,
        "running": [],
        "before": 0,
        "in_rq": {},
        "dependencies": [],
        "place": Place.IN_RQ,
    }
    optional = Situation.__annotations__.keys() - defaults.keys()
    return Situation(**{**dict.fromkeys(optional), **defaults, **facts})


def worker(*queues: str, types: set[str] | None = frozenset({"MAIL"}), expires_in: int = 80) -> WorkerState:  # type: ignore[assignment]
    known = None if types is None else frozenset(types)
    return WorkerState("w", None, None, "idle", list(queues or ("high", "default")), [], None, known, expires_in)


ONE = RedisView([worker()])


def explained(workers: RedisView = ONE, **facts: Any) -> Explanation:
    return explain_situation(situation(**facts), workers)


def codes(workers: RedisView = ONE, **facts: Any) -> list[str]:
    return [reason["code"] for reason in explained(workers, **facts)["reasons"]]


def test_job_that_nothing_keeps_is_the_next_one() -> None:
    found = explained()
    assert [(one["code"], one["jobs"]) for one in found["reasons"]] == [("behind", 0)]
    assert found["next"] == "A worker takes the job as soon as one has a free slot."


def test_all_reasons_come_in_order_of_importance() -> None:
    everything: dict[str, Any] = {
        "queue_paused_at": NOW,
        "concurrency_key": "k",
        "concurrency_limit": 1,
        "slots": 1,
        "before": 3,
    }
    assert codes(RedisView(), **everything) == ["queue-paused", "no-worker", "concurrency-key", "behind"]
    unknown = RedisView([worker(types={"OTHER"})])
    assert codes(unknown, **everything) == ["queue-paused", "no-handler", "concurrency-key", "behind"]
    later = {**everything, "due_at": NOW + HOUR, "place": Place.NOT_DISPATCHED, "before": 0}
    assert codes(RedisView(problem="Down."), **later) == ["due-later", "redis-down", "queue-paused"]
    assert explained(RedisView(), **everything)["next"] == "Starts once none of these reasons holds any more."
    assert "13:00:00.000Z at the earliest" in explained(RedisView(), **later)["next"]


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        (Status.SCHEDULED, None, "due-later"),
        (Status.SCHEDULED, Outcome.HANDED_BACK, "due-later"),
        (Status.SCHEDULED, Outcome.SNOOZED, "snoozed"),
        (Status.RETRYING, Outcome.LOST, "retry-backoff"),
        (Status.RETRYING, Outcome.FAILED, "retry-backoff"),
        (Status.PENDING, Outcome.SNOOZED, "due-later"),
    ],
)
def test_later_job_waits_for_a_time_of_its_kind(status: Status, outcome: Outcome | None, code: str) -> None:
    facts = {"status": status, "last_outcome": outcome, "due_at": NOW + HOUR, "place": Place.NOT_DISPATCHED}
    found = explained(**facts)
    assert [(one["code"], one["at"]) for one in found["reasons"]] == [(code, "2026-11-24T13:00:00.000Z")]
    assert found["next"] == "Starts at 2026-11-24T13:00:00.000Z, or when a slot is free after that."


@pytest.mark.parametrize("status", WAITING)
@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("workers", [ONE, RedisView(), RedisView([worker(types=None)]), RedisView(problem="Down.")])
def test_waiting_job_always_has_a_reason_and_a_next(
    status: Status, place: Place, key: str | None, hours: int, workers: RedisView
) -> None:
    limit = 1 if key else None
    due_at = NOW + hours * HOUR
    found = explained(workers, status=status, place=place, concurrency_key=key, concurrency_limit=limit, due_at=due_at)
    assert found["reasons"]
    assert found["next"]
    assert all(one["code"] in get_args(ReasonCode) for one in found["reasons"])


@pytest.mark.parametrize(
    ("place", "used", "in_rq", "wait", "is_reason"),
    [
        (Place.WITHHELD, 2, 0, 30, True),
        (Place.WITHHELD, 1, 1, 60, True),
        (Place.WITHHELD, 1, 0, 0, True),  # the next check of the relay dispatches it
        (Place.IN_RQ, 1, 1, 30, False),
        (Place.IN_RQ, 2, 1, 30, True),
        (Place.NOT_DISPATCHED, 1, 1, 60, True),
        (Place.NOT_DISPATCHED, 1, 0, 0, False),
    ],
)
def test_full_rate_limit_is_a_reason(place: Place, used: int, in_rq: int, wait: float, is_reason: bool) -> None:
    rate = RateSituation(Rate("r", 2, 60.0), RateUse(used, in_rq, wait), 3)
    found = [one for one in explained(place=place, rate=rate)["reasons"] if one["code"] == "rate-limit"]
    assert bool(found) is is_reason
    for one in found:
        assert (one["key"], one["limit"], one["per"], one["used"], one["dispatched"]) == ("r", 2, 60, used, in_rq)
        assert (one["at"], one["jobs"]) == (show_moment(NOW + timedelta(seconds=wait)), 3)


def test_jobs_of_queues_that_every_worker_serves_first_come_before() -> None:
    in_rq = {"high": 20, "low": 30}
    [found] = explained(before=2, in_rq=in_rq)["reasons"]
    assert (found["jobs"], found["jobsOfQueuesBefore"]) == (22, {"high": 20})
    assert found["detail"].endswith(": 22; 2 in its own queue, 20 in high, which is served first.")
    both = RedisView([worker(), worker("default", "high")])
    assert explained(both, before=2, in_rq=in_rq)["reasons"][0]["jobs"] == 2
    low_first = RedisView([worker("low", "high", "default")])
    assert explained(low_first, before=2, in_rq=in_rq)["reasons"][0]["jobs"] == 52


def test_numbers_stop_at_their_limit() -> None:
    [found] = explained(before=MOST_BEFORE, in_rq={"high": 1})["reasons"]
    assert found["jobs"] == MOST_BEFORE
    assert "10,000 or more" in found["detail"]


def test_handler_is_missing_only_if_no_live_worker_may_know_the_type() -> None:
    ignorant, stock = worker(types={"OTHER"}), worker(types=None)
    assert codes(RedisView([ignorant])) == ["no-handler"]
    assert codes(RedisView([ignorant, worker()])) == ["behind"]
    assert codes(RedisView([ignorant, stock])) == ["behind"]
    assert codes(RedisView([ignorant, stock]), place=Place.AWAITS_HANDLER) == ["no-handler"]
    assert codes(RedisView([worker()]), place=Place.AWAITS_HANDLER) == ["behind"]
    assert codes(RedisView(), place=Place.AWAITS_HANDLER) == ["no-worker"]


def test_key_is_full_or_the_job_is_withheld_for_it() -> None:
    key: dict[str, Any] = {"concurrency_key": "k", "concurrency_limit": 2, "running": [OTHER]}
    assert codes(slots=1, **key) == ["behind"]
    assert codes(slots=2, **key) == ["concurrency-key"]
    withheld = explained(slots=1, place=Place.WITHHELD, before=4, **key)["reasons"]
    assert [(one["code"], one["jobs"], one["running"]) for one in withheld] == [("concurrency-key", 4, [str(OTHER)])]
    assert codes(slots=1, place=Place.WITHHELD, queue_paused_at=NOW, **key) == ["queue-paused"]


def test_expiry_is_part_of_what_happens_next() -> None:
    assert explained(expires_at=NOW + HOUR)["next"].endswith("Fails if it has not started by 2026-11-24T13:00:00.000Z.")
    assert "expired at" in explained(expires_at=NOW)["next"]
    assert "Fail" not in explained(expires_at=NOW + HOUR, last_outcome=Outcome.LOST)["next"]
    assert "expired" not in explained(expires_at=NOW, last_outcome=Outcome.LOST)["next"]


def test_suspended_workers_serve_nothing() -> None:
    assert codes(RedisView([worker()], is_suspended=True)) == ["no-worker"]


RUNS: dict[str, Any] = {
    "status": Status.PROCESSING,
    "place": None,
    "attempts": 2,
    "worker": "w",
    "started_at": NOW - HOUR,
    "lease_expires_at": NOW + timedelta(seconds=9),
}


def test_running_job_ends_by_itself_or_at_its_timeout() -> None:
    [found] = explained(**RUNS)["reasons"]
    assert (found["code"], found["timeoutAt"], found["isLeaseExpired"]) == (
        "running",
        "2026-11-24T11:03:00.000Z",
        False,
    )
    assert "11:03:00.000Z" in explained(**RUNS)["next"]


def test_cancel_and_lost_lease_decide_what_a_running_job_becomes() -> None:
    assert "CANCELLED" in explained(**RUNS, cancel_requested_at=NOW)["next"]
    lapsed = {**RUNS, "lease_expires_at": NOW - HOUR}
    assert "RETRYING" in explained(**lapsed)["next"]
    assert "FAILED" in explained(**{**lapsed, "attempts": 4})["next"]
    assert "CANCELLED" in explained(**lapsed, cancel_requested_at=NOW)["next"]


@pytest.mark.parametrize(
    ("status", "again"), [(Status.COMPLETED, False), (Status.FAILED, True), (Status.CANCELLED, True)]
)
def test_ended_job_can_be_retried_unless_it_completed(status: Status, again: bool) -> None:
    found = explained(status=status, place=None, finished_at=NOW, attempts=1)
    assert [one["code"] for one in found["reasons"]] == ["ended"]
    assert (f"POST /jobs/{JOB}/retry" in found["next"]) == again


def test_worker_is_lost_once_it_missed_its_heartbeats() -> None:
    assert not worker(expires_in=61).is_lost
    assert worker(expires_in=60).is_lost
    assert not worker(types=None, expires_in=10).is_lost
