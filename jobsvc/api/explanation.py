"""The reply of GET /jobs/:id/explain."""

from datetime import datetime
from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from jobsvc.jobs.serialize import Time, Uuid, show_time
from jobsvc.states import Status

ReasonCode = Literal[
    "due-later",
    "retry-backoff",
    "snoozed",
    "blocked",
    "redis-down",
    "queue-paused",
    "no-worker",
    "no-handler",
    "concurrency-key",
    "rate-limit",
    "behind",
    "running",
    "ended",
]


class DependencyShown(TypedDict):
    """A job that another one waits for."""

    id: Uuid
    status: Status


class Reason(TypedDict):
    """One reason: its code, a sentence about it, and fields that depend on the code.

    `due-later`, `retry-backoff`, `snoozed`: `at` is the earliest start.
    `concurrency-key`: `slots` of the `limit` are occupied; `running` are up to 10 of the running jobs, `jobs` the
    number of waiting jobs with the key that come before, at most 10,000.
    `rate-limit`: `used` of the `limit` starts in `per` seconds are used, `dispatched` are for jobs in RQ; the next slot
    is free at `at`; `jobs` is the number of waiting jobs with the key that come before, at most 10,000.
    `behind`: `jobs` is the number of jobs that come before, at most 10,000; `jobsOfQueuesBefore` has those of them
    that are in queues which are served before the job's own.
    `blocked`: `jobs` is the number of jobs that this one depends on and that have not ended; `dependencies` are up to
    10 of them, each with its status.
    `no-handler`: `types` are the types that the live workers of the queue know.
    """

    code: ReasonCode
    detail: str
    at: NotRequired[Time]
    attempt: NotRequired[int]
    maxAttempts: NotRequired[int]
    errorType: NotRequired[str | None]
    queue: NotRequired[str]
    pausedAt: NotRequired[Time]
    type: NotRequired[str]
    types: NotRequired[list[str]]
    key: NotRequired[str]
    limit: NotRequired[int]
    slots: NotRequired[int]
    per: NotRequired[float]
    used: NotRequired[int]
    dispatched: NotRequired[int]
    running: NotRequired[list[Uuid]]
    jobs: NotRequired[int]
    jobsOfQueuesBefore: NotRequired[dict[str, int]]
    dependencies: NotRequired[list[DependencyShown]]
    worker: NotRequired[str | None]
    startedAt: NotRequired[Time]
    timeoutAt: NotRequired[Time]
    leaseExpiresAt: NotRequired[Time]
    isLeaseExpired: NotRequired[bool]
    cancelRequestedAt: NotRequired[Time | None]
    finishedAt: NotRequired[Time]
    outcome: NotRequired[str | None]


_EXAMPLE: Any = {
    "status": "PENDING",
    "reasons": [
        {
            "code": "queue-paused",
            "detail": "The queue low has been paused since 2026-11-24T12:52:18.798Z.",
            "queue": "low",
            "pausedAt": "2026-11-24T12:52:18.798Z",
        }
    ],
    "next": "Starts after the queue low is resumed.",
}


@with_config(ConfigDict(json_schema_extra={"examples": [_EXAMPLE]}))
class Explanation(TypedDict):
    """Why a job is where it is: at least one reason, the most important first, and what happens next."""

    status: Status
    reasons: list[Reason]
    next: str


def make_reason(code: ReasonCode, detail: str, **fields: Any) -> Reason:
    """Return a reason with these fields."""
    reason: Any = {"code": code, "detail": detail, **fields}
    checked: Reason = reason
    return checked


def show_moment(moment: datetime | None) -> str:
    """Return the time as the API shows it; an empty text for None."""
    return show_time(moment) or ""
