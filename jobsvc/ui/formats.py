"""How the console writes times, durations, numbers and JSON: the filters of its templates."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from jobsvc.db.models import Job
from jobsvc.durations import format_age
from jobsvc.durations import format_duration as duration
from jobsvc.jobs import Counted, JobSummary, current_time
from jobsvc.jobs.cron_words import describe_cron
from jobsvc.states import WAITING, Status

MAX_TEXT = 20_000
"""Maximum number of characters of a value that a page shows; the API has the whole value."""

Time = datetime | str
"""A time of the database, or one as the API writes it (RFC 3339)."""


def moment(value: Time) -> datetime:
    """Return a time as a datetime."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def ago(at: datetime) -> str:
    """Return a time relative to now in one unit, such as `3 min ago` or `in 2 h`."""
    seconds = (current_time() - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{format_age(seconds)} ago" if seconds > 0 else f"in {format_age(-seconds)}"


def exact(at: datetime) -> str:
    """Return a time in UTC with milliseconds."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def in_zone(at: datetime, timezone: str) -> str:
    """Return a time as the clock of a time zone shows it."""
    return f"{at.astimezone(ZoneInfo(timezone)):%a %Y-%m-%d %H:%M}"


def took(job: Job | JobSummary) -> float | None:
    """Return the seconds of a job's last attempt, up to now if it is running; None if that is not known."""
    # A job may be cancelled long after its last attempt.
    if job.started_at is None or job.status in (*WAITING, Status.CANCELLED):
        return None
    return max(((job.finished_at or current_time()) - job.started_at).total_seconds(), 0.0)


def total(counts: Mapping[Status, Counted], statuses: Sequence[str]) -> Counted:
    """Return the sum of the counts of these statuses."""
    return sum((counts[Status(status)] for status in statuses), Counted(0, is_complete=True))


def number(value: int) -> str:
    """Return a whole number with thousands separators."""
    return f"{value:,}"


def pretty(value: Any) -> str:
    """Return a JSON value with indents, cut to MAX_TEXT characters."""
    return cut(json.dumps(value, indent=2, ensure_ascii=False))


def cut(text: str, most: int = MAX_TEXT) -> str:
    """Return the first `most` characters of a text, with its length if that is not all."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def first_line(text: str) -> str:
    """Return the first line of a text, cut for a table."""
    return cut(text.partition("\n")[0], 160)


FILTERS = (ago, cut, describe_cron, duration, exact, first_line, in_zone, moment, number, pretty, took, total)
