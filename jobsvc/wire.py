"""Jobs and attempts as they go over the wire, in replies, events and webhooks."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jobsvc.models import Attempt, Job, Outcome, Schedule, Status


def show_time(moment: datetime | None) -> str | None:
    """RFC 3339, UTC, with milliseconds and Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None


def show_number(value: float) -> float:
    """The number as it was most likely written: 5, not 5.0."""
    return int(value) if value.is_integer() else value


def _in_order(value: dict[str, Any] | None, *keys: str) -> dict[str, Any] | None:
    """The object with its keys in the documented order, which jsonb doesn't keep."""
    return None if value is None else {key: value[key] for key in keys}


def dump_job(job: Job) -> dict[str, Any]:
    """A job as GET /jobs/:id shows it."""
    waits_for_its_time = job.status in (Status.SCHEDULED, Status.RETRYING)
    return {
        "id": str(job.id),
        "type": job.type,
        "payload": job.payload,
        "status": job.status,
        "createdAt": show_time(job.created_at),
        "queue": job.queue,
        "runAt": show_time(job.run_at),
        "startedAt": show_time(job.started_at),
        "finishedAt": show_time(job.finished_at),
        "attempts": job.attempts,
        "maxAttempts": job.max_attempts,
        "retryIntervals": [show_number(interval) for interval in job.retry_intervals],
        "nextAttemptAt": show_time(job.due_at) if waits_for_its_time else None,
        "timeout": show_number(job.timeout),
        "expiresAt": show_time(job.expires_at),
        "uniqueKey": job.unique_key,
        "concurrencyKey": job.concurrency_key,
        "tags": job.tags or [],
        "webhookJobId": str(job.webhook_job_id) if job.webhook_job_id else None,
        "progress": _in_order(job.progress, "percent", "message"),
        "result": job.result,
        "error": _in_order(job.error, "type", "message", "attempt"),
    }


def dump_schedule(schedule: Schedule) -> dict[str, Any]:
    """A schedule as GET /schedules/:name shows it."""
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
    """How far a job has come, as an event tells it. The job may be a `Snapshot`."""
    return {
        "id": str(job.job_id),
        "status": job.status,
        "attempts": job.attempts,
        "progress": _in_order(job.progress, "percent", "message"),
        "error": _in_order(job.error, "type", "message", "attempt"),
    }


def dump_attempts(job: Job, ended: Sequence[Attempt]) -> list[dict[str, Any]]:
    """A job's attempts as GET /jobs/:id/attempts shows them, the first one first.

    The attempt that runs, or that succeeded in silence, has no row of its own: the job's row says all of it.
    """
    shown = [
        {
            "number": attempt.number,
            "startedAt": show_time(attempt.started_at),
            "finishedAt": show_time(attempt.finished_at),
            "worker": attempt.worker,
            "outcome": attempt.outcome,
            "error": {
                "type": attempt.error_type,
                "message": attempt.error_message,
                "traceback": attempt.traceback,
            }
            if attempt.error_type
            else None,
            "logs": [_in_order(line, "time", "level", "message") for line in attempt.logs or []],
        }
        for attempt in ended
    ]
    # `ended` may be newer than `job`, and hold what was running a moment ago.
    if job.status in (Status.PROCESSING, Status.COMPLETED) and job.fence not in {attempt.fence for attempt in ended}:
        shown.append(
            {
                "number": job.attempts,
                "startedAt": show_time(job.started_at),
                "finishedAt": show_time(job.finished_at),
                "worker": job.worker,
                "outcome": Outcome.COMPLETED if job.status == Status.COMPLETED else None,
                "error": None,
                "logs": [],
            }
        )
    return shown
