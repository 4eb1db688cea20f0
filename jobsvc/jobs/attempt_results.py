"""Results of attempts, to be stored by `finish`."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jobsvc.states import Outcome

UNCOUNTED = (Outcome.SNOOZED, Outcome.HANDED_BACK)
"""Outcomes of a start that doesn't count as an attempt."""


@dataclass(frozen=True)
class Failure:
    """The failure of an attempt."""

    type: str
    message: str
    traceback: str | None = None


@dataclass(frozen=True)
class AttemptResult:
    """The result of an attempt.

    delay: seconds until the next start, instead of the job's retry interval.
    logs: lines not stored yet, [{time, level, message}]; the last one has the number `last_line`, from 1.
    handler_called: False if the handler was never called.
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
    handler_called: bool = True

    @property
    def is_plain(self) -> bool:
        """True if the attempt completed without a result value, progress or logs."""
        return self.outcome == Outcome.COMPLETED and self.result is None and not self.progress and not self.logs

    @property
    def needs_row(self) -> bool:
        """True if the attempt gets a row in `attempts`: it logged, or its handler was called and did not succeed."""
        return bool(self.logs) or (self.handler_called and self.outcome != Outcome.COMPLETED)


def lost(job_id: UUID, fence: int, message: str) -> AttemptResult:
    """Return the result of an attempt whose worker was lost; `message` says why."""
    return AttemptResult(job_id, fence, Outcome.LOST, failure=Failure("WorkerLost", message))


def completed(job_id: UUID, fence: int, result: Any = None) -> AttemptResult:
    """Return the result of an attempt whose handler returned `result`."""
    return AttemptResult(job_id, fence, Outcome.COMPLETED, result)


def returned_uncounted(job_id: UUID, fence: int, handler_called: bool = True) -> AttemptResult:
    """Return the result that returns a job to its queue, without counting the attempt."""
    return AttemptResult(job_id, fence, Outcome.HANDED_BACK, delay=0, handler_called=handler_called)
