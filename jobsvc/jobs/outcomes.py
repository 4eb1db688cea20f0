"""How an attempt ended, in the words of whoever made it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jobsvc.states import Outcome

UNCOUNTED = (Outcome.SNOOZED, Outcome.HANDED_BACK)
"""How a start may end that doesn't count as an attempt."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed."""

    type: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True)
class AttemptResult:
    """How an attempt ended. `delay` (seconds) stands in for the job's own interval.

    `logs`: lines that it logged and that are not stored yet, [{time, level, message}]; the last one has the number
    `last_line`, counted from 1. Not `begun`: its handler was never called.
    """

    job_id: UUID
    fence: int
    outcome: Outcome
    result: Any = None
    failure: Failure | None = None
    delay: float | None = None
    progress: dict[str, Any] | None = None
    logs: list[dict[str, Any]] | None = None
    last_line: int = 0
    begun: bool = True

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing but that the attempt completed."""
        return self.outcome == Outcome.COMPLETED and self.result is None and not self.progress and not self.logs


def lost(job_id: UUID, fence: int, message: str) -> AttemptResult:
    """The end of an attempt that nobody will end any more; `message` says why."""
    return AttemptResult(job_id, fence, Outcome.LOST, failure=Failure("WorkerLost", message))


def completed(job_id: UUID, fence: int, result: Any = None) -> AttemptResult:
    """The end of an attempt whose handler returned this."""
    return AttemptResult(job_id, fence, Outcome.COMPLETED, result)


def handed_back(job_id: UUID, fence: int, begun: bool = True) -> AttemptResult:
    """The end that puts a job back, uncounted."""
    return AttemptResult(job_id, fence, Outcome.HANDED_BACK, delay=0, begun=begun)
