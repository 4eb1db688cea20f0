"""The timeline of a job in each state."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobsvc.db.models import Job
from jobsvc.jobs.serialize import AttemptShown, show_time
from jobsvc.states import Outcome, Status
from jobsvc.ui.timeline import MOST_ATTEMPTS, MOST_RETRIES, Moment, timeline

CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return CREATED + timedelta(seconds=seconds)


def job(status: Status, attempts: int = 0, **facts: Any) -> Job:
    """A job with three retries that was created for now."""
    defaults = {"created_at": CREATED, "due_at": at(9), "retry_intervals": [1.0, 5.0, 3660.0], "max_attempts": 4}
    return Job(status=status, attempts=attempts, **{**defaults, **facts})


def attempt(number: int, outcome: Outcome | None = Outcome.FAILED, error: str | None = "ValueError") -> AttemptShown:
    finished = show_time(at(number + 0.5)) if outcome else None
    failure: Any = {"type": error, "message": "no", "traceback": None} if error else None
    return {
        "number": number,
        "startedAt": show_time(at(number)),
        "finishedAt": finished,
        "worker": "w",
        "outcome": outcome,
        "error": failure,
        "logs": [],
    }


def texts(one: Job, *attempts: AttemptShown) -> list[str]:
    return [moment.text for moment in timeline(one, attempts)]


def test_new_job_has_a_plan() -> None:
    assert list(timeline(job(Status.SCHEDULED, run_at=at(9)), [])) == [
        Moment(CREATED, "Created"),
        Moment(at(9), "Requested start"),
        Moment(at(9), "Attempt 1 is due"),
        Moment(None, "If that fails: again after 1 s, 5 s, 1 h 1 min"),
    ]


def test_retries_that_are_left_are_planned() -> None:
    assert texts(job(Status.RETRYING, 2), attempt(1), attempt(2))[-2:] == [
        "Attempt 3 is due",
        "If that fails: again after 1 h 1 min",
    ]
    assert texts(job(Status.PROCESSING, 2), attempt(1), attempt(2, None, None))[-2:] == [
        "Attempt 2 is running",
        "If that fails: again after 5 s, 1 h 1 min",
    ]


@pytest.mark.parametrize(("status", "attempts"), [(Status.RETRYING, 3), (Status.PROCESSING, 4)])
def test_last_attempt_has_no_plan_after_it(status: Status, attempts: int) -> None:
    assert not [text for text in texts(job(status, attempts)) if "fails" in text]


def test_job_without_retries_has_one_attempt() -> None:
    assert texts(job(Status.PENDING, retry_intervals=[], max_attempts=1)) == ["Created", "Attempt 1 is due"]


def test_job_retried_by_hand_plans_its_new_retries() -> None:
    again = job(Status.PENDING, 4, max_attempts=8)
    assert texts(again)[-2:] == ["Attempt 5 is due", "If that fails: again after 1 s, 5 s, 1 h 1 min"]


def test_only_the_next_retries_are_listed() -> None:
    intervals = [float(number) for number in range(1, 21)]
    plan = texts(job(Status.PENDING, retry_intervals=intervals, max_attempts=21))[-1]
    assert (
        plan == f"If that fails: again after {', '.join(f'{n} s' for n in range(1, MOST_RETRIES + 1))}, … (20 in all)"
    )


def test_attempts_have_their_outcome_and_how_long_they_took() -> None:
    ended = [
        attempt(1),
        attempt(2, Outcome.LOST, "WorkerLost"),
        attempt(3, Outcome.SNOOZED, None),
        attempt(3, Outcome.COMPLETED, None),
    ]
    shown = list(timeline(job(Status.COMPLETED, 3, finished_at=at(4)), ended))
    assert [(one.text, one.kind) for one in shown[1:]] == [
        ("Attempt 1 failed after 500 ms: ValueError", "failed"),
        ("Attempt 2 lost after 500 ms: WorkerLost", "failed"),
        ("Attempt 3 snoozed after 500 ms", ""),
        ("Attempt 3 completed after 500 ms", "completed"),
        ("Ended: COMPLETED", "completed"),
    ]
    assert shown[1].at == show_time(at(1))
    assert shown[-1].at == at(4)


@pytest.mark.parametrize("number", [MOST_ATTEMPTS, MOST_ATTEMPTS + 1, 3 * MOST_ATTEMPTS])
def test_only_the_newest_attempts_are_shown(number: int) -> None:
    shown = texts(job(Status.FAILED, number, finished_at=at(99)), *map(attempt, range(1, number + 1)))
    assert len([text for text in shown if text.startswith("Attempt")]) == MOST_ATTEMPTS
    assert ("… earlier attempts" in shown) == (number > MOST_ATTEMPTS)
    assert shown[-2].startswith(f"Attempt {number} failed")


def test_cancel_is_requested_of_a_running_job_alone() -> None:
    running = job(Status.PROCESSING, 1, cancel_requested_at=at(3))
    assert Moment(at(3), "Cancel requested") in list(timeline(running, [attempt(1, None, None)]))
    for status in (Status.CANCELLED, Status.PENDING):
        assert "Cancel requested" not in texts(job(status, 1, cancel_requested_at=at(3), finished_at=at(4)))


def test_expiry_is_planned_until_the_job_starts() -> None:
    for status in (Status.PENDING, Status.SCHEDULED):
        assert list(timeline(job(status, expires_at=at(60)), []))[-1] == Moment(at(60), "Expires unless it has started")
    for one in (
        job(Status.PROCESSING, 1, expires_at=at(60)),
        job(Status.FAILED, expires_at=at(60), finished_at=at(60)),
    ):
        assert not [text for text in texts(one) if "Expires" in text]
