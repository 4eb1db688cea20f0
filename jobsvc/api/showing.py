"""Jobs and schedules as the caller may see them: with a `read` key, secrets of HTTP_REQUEST are masked."""

from typing import cast

from flask import g

from jobsvc.config import settings
from jobsvc.db.models import Job, Schedule
from jobsvc.jobs.serialize import JobShown, ScheduleShown, dump_job, dump_schedule
from jobsvc.masking import MASKED_TYPES, mask_job


def sees_secrets() -> bool:
    """Return True if the caller may see secrets: it has a write or admin key, or there are no keys."""
    return settings().is_open or g.get("scope") in ("write", "admin")


def dump_job_for_caller(job: Job) -> JobShown:
    """Return the job as JSON, masked for a caller that may not see secrets."""
    shown = dump_job(job)
    return shown if sees_secrets() else cast(JobShown, mask_job(shown))


def dump_schedule_for_caller(schedule: Schedule) -> ScheduleShown:
    """Return the schedule as JSON, its job masked for a caller that may not see secrets."""
    shown = dump_schedule(schedule)
    return shown if sees_secrets() else {**shown, "job": mask_job(shown["job"])}


def tag_suffix(job: Job) -> str:
    """Return the text after the version in the job's ETag: it keeps masked and full responses apart in caches."""
    return "-masked" if job.type in MASKED_TYPES and not sees_secrets() else ""
