"""The audit of workflows: each dependent runs after what it depends on, or is cancelled, and is released once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.chaos.load import Accepted
from tests.chaos.moves import Move

FAILED = ("FAILED", "CANCELLED")


def is_to_be_cancelled(job: Accepted, rows: Mapping[str, Any]) -> bool:
    """Return True if a job that it depends on has failed, and that cancels it."""
    return job.is_cancelled_by_failure and any(one in rows and rows[one].status in FAILED for one in job.depends_on)


def was_cancelled_by_failure(row: Any, runs: Sequence[Any]) -> bool:
    """Return True if the job was cancelled because of a job that it depends on, and never ran."""
    return row.status == "CANCELLED" and (row.error or {}).get("type") == "DependencyFailed" and not runs


def ran_before_its_dependencies(job: Accepted, rows: Mapping[str, Any], runs: Sequence[Any]) -> bool:
    """Return True if a run began before all jobs that it depends on had ended."""
    ends = [rows[one].finished_at for one in job.depends_on if one in rows]
    return any(end is None or run.started_at < end for end in ends for run in runs)


def find_released_twice(moves: Iterable[Move]) -> list[str]:
    """Return the jobs that were released more than once. No job is retried by hand here."""
    released = Counter(move.job_id for move in moves if move.is_release)
    return [job_id for job_id, times in released.items() if times > 1]
