"""JSON of jobs and attempts, for replies, events and webhooks."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from pydantic import Field
from typing_extensions import TypedDict

from jobsvc.db.models import Attempt, Job, Schedule
from jobsvc.jobs.log_lines import Line, Lines, join
from jobsvc.states import Outcome, Status

Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class ProgressShown(TypedDict):
    """The progress of an attempt, in percent (0 to 100), with a message."""

    percent: float
    message: str | None


class ErrorShown(TypedDict):
    """The error of the last attempt that failed; it stays after a later attempt succeeds."""

    type: str
    message: str
    attempt: int


class RateLimitShown(TypedDict):
    """At most `limit` attempts of jobs with this key start in any `per` seconds."""

    key: str
    limit: int
    per: float


class JobShown(TypedDict):
    """A job.

    `retryIntervals`: seconds before each retry, as drawn when the job was accepted. `nextAttemptAt`: the earliest start
    of the next attempt. `dependsOn`: ids of jobs that must end before this one starts; it is BLOCKED until then.
    """

    id: Uuid
    type: str
    payload: dict[str, Any]
    status: Status
    createdAt: Time
    queue: str
    runAt: Time | None
    startedAt: Time | None
    finishedAt: Time | None
    attempts: int
    maxAttempts: int
    retryIntervals: list[float]
    nextAttemptAt: Time | None
    timeout: float
    expiresAt: Time | None
    uniqueKey: str | None
    concurrencyKey: str | None
    rateLimit: RateLimitShown | None
    dependsOn: list[Uuid]
    tags: list[str]
    webhookJobId: Uuid | None
    progress: ProgressShown | None
    result: Any
    error: ErrorShown | None


class FailureShown(TypedDict):
    """Why an attempt failed."""

    type: str
    message: str | None
    traceback: str | None


class LineShown(TypedDict):
    """A line of an attempt's log."""

    time: Time
    level: str
    message: str


class AttemptShown(TypedDict):
    """An attempt. `worker` is RQ's name of its worker; `outcome` is null while it runs."""

    number: int
    startedAt: Time | None
    finishedAt: Time | None
    worker: str | None
    outcome: Outcome | None
    error: FailureShown | None
    logs: list[LineShown]


class ScheduleShown(TypedDict):
    """A schedule. `nextRunAt` is null while it is not enabled."""

    name: str
    cron: str
    timezone: str
    enabled: bool
    job: dict[str, Any]
    nextRunAt: Time | None
    lastRunAt: Time | None
    lastJobId: Uuid | None


def show_time(moment: datetime | None) -> str | None:
    """Return the time in RFC 3339, UTC, with milliseconds and Z; None for None."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


def show_number(value: float) -> float:
    """Return a whole number as an int: 5, not 5.0."""
    return int(value) if value.is_integer() else value


def _in_order(value: dict[str, Any] | None, *keys: str) -> Any:
    """Return the object with its keys in the documented order, which jsonb doesn't keep."""
    return None if value is None else {key: value[key] for key in keys}


def _dump_rate_limit(job: Job) -> RateLimitShown | None:
    if job.rate_key is None or job.rate_limit is None or job.rate_per is None:
        return None
    return {"key": job.rate_key, "limit": job.rate_limit, "per": show_number(job.rate_per)}


def dump_job(job: Job) -> JobShown:
    """Return a job as in GET /jobs/:id."""
    waits_for_its_time = job.status in (Status.SCHEDULED, Status.RETRYING)
    return {
        "id": str(job.id),
        "type": job.type,
        "payload": job.payload,
        "status": Status(job.status),
        "createdAt": cast(str, show_time(job.created_at)),
        "queue": job.queue,
        "runAt": show_time(job.run_at),
        "startedAt": show_time(job.started_at),
        "finishedAt": show_time(job.finished_at),
        "attempts": job.attempts,
        "maxAttempts": job.max_attempts,
        "retryIntervals": [show_number(interval) for interval in job.retry_intervals],
        "nextAttemptAt": show_time(job.due_at) if waits_for_its_time else None,
        "timeout": show_number(job.timeout),
        "expiresAt": show_time(job.expires_at or job.expiry_met),
        "uniqueKey": job.unique_key,
        "concurrencyKey": job.concurrency_key,
        "rateLimit": _dump_rate_limit(job),
        "dependsOn": [str(job_id) for job_id in job.depends_on or ()],
        "tags": job.tags or [],
        "webhookJobId": str(job.webhook_job_id) if job.webhook_job_id else None,
        "progress": _in_order(job.progress, "percent", "message"),
        "result": job.result,
        "error": _in_order(job.error, "type", "message", "attempt"),
    }


def dump_schedule(schedule: Schedule) -> ScheduleShown:
    """Return a schedule as in GET /schedules/:name."""
    return {
        "name": schedule.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "enabled": schedule.enabled,
        "job": schedule.job,
        "nextRunAt": show_time(schedule.next_run_at),
        "lastRunAt": show_time(schedule.last_run_at),
        "lastJobId": str(schedule.last_job_id) if schedule.last_job_id else None,
    }


def dump_snapshot(job: Any) -> dict[str, Any]:
    """Return a job's status and progress as in an event."""
    return {
        "id": str(job.job_id),
        "status": job.status,
        "attempts": job.attempts,
        "progress": _in_order(job.progress, "percent", "message"),
        "error": _in_order(job.error, "type", "message", "attempt"),
    }


def dump_attempts(job: Job, ended: Sequence[Attempt], lines: Mapping[int, Sequence[Lines]]) -> list[AttemptShown]:
    """Return a job's attempts as in GET /jobs/:id/attempts, the first one first.

    A running attempt, or a success without log lines at its end, has no row; it is made from the job's row.
    lines: log lines stored while the attempts ran, by fence.
    """
    shown: list[AttemptShown] = [
        {
            "number": attempt.number,
            "startedAt": show_time(attempt.started_at),
            "finishedAt": show_time(attempt.finished_at),
            "worker": attempt.worker,
            "outcome": Outcome(attempt.outcome),
            "error": {
                "type": attempt.error_type,
                "message": attempt.error_message,
                "traceback": attempt.traceback,
            }
            if attempt.error_type
            else None,
            "logs": _dump_lines([*lines.get(attempt.fence, []), *_lines_at_end(attempt)]),
        }
        for attempt in ended
    ]
    # `ended` may be newer than `job`, and contain the attempt that was running in `job`.
    if job.status in (Status.PROCESSING, Status.COMPLETED) and job.fence not in {attempt.fence for attempt in ended}:
        shown.append(
            {
                "number": job.attempts,
                "startedAt": show_time(job.started_at),
                "finishedAt": show_time(job.finished_at),
                "worker": job.worker,
                "outcome": Outcome.COMPLETED if job.status == Status.COMPLETED else None,
                "error": None,
                "logs": _dump_lines(lines.get(job.fence, [])),
            }
        )
    return shown


def _lines_at_end(attempt: Attempt) -> list[Lines]:
    return [Lines(attempt.last_line or len(attempt.logs), attempt.logs)] if attempt.logs else []


def _dump_lines(portions: Sequence[Lines]) -> list[LineShown]:
    return [_in_order(line, "time", "level", "message") for line in join(portions).shown()] if portions else []


def dump_line(attempt: int, line: Line) -> dict[str, Any]:
    """Return a line of an attempt's log as in an event."""
    return {"attempt": attempt, **_in_order(line, "time", "level", "message")}
