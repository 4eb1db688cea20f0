"""A worker's running jobs and finished attempts, and the interface to RQ that they need."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from jobsvc.jobs import AttemptResult, JobTransition, StartedAttempt, completed, returned_uncounted
from jobsvc.states import Status
from jobsvc.worker.child import ChildProcess


@dataclass(eq=False)
class RunningJob:
    """A job that this worker has started, with its slot. Times are monotonic seconds."""

    started: StartedAttempt
    slot: int
    child: ChildProcess
    since: float
    execution_id: str = ""  # RQ's, once RQ shows it as started
    is_cancel_requested: bool = False
    is_stopped_by_rq: bool = False
    has_lost_lease: bool = False
    is_ended: bool = False
    stop_by: float = math.inf  # deadline of the handler after a request to stop
    overdue: BaseException | None = None  # why its process is to be killed
    partial_result: AttemptResult | None = None
    is_asked: bool = False  # for a partial result, before its process is killed

    @property
    def called_at(self) -> float:
        """Return when its handler was called; 0 before."""
        return self.child.called_at(self.slot)

    @property
    def is_running(self) -> bool:
        """Return True while its handler runs."""
        return bool(self.called_at) and not self.is_ended

    def on_cancel(self) -> None:
        """Request a cancel. From any thread."""
        self.is_cancel_requested = True

    def on_lost(self) -> None:
        """Record that the lease was lost. From the lease keeper's thread."""
        self.has_lost_lease = True

    def completed(self) -> AttemptResult:
        """Return a success without a result, progress or log lines."""
        return completed(self.started.job_id, self.started.fence)

    def returned_uncounted(self, handler_called: bool) -> AttemptResult:
        """Return a result that returns the job uncounted."""
        return returned_uncounted(self.started.job_id, self.started.fence, handler_called)


@dataclass(frozen=True)
class FinishedAttempt:
    """A finished attempt: result, duration and stored transition (`transition`), None if the lease was lost."""

    job: RunningJob
    result: AttemptResult
    seconds: float
    transition: JobTransition | None = None

    @property
    def is_completed(self) -> bool:
        """Return True if the attempt completed the job."""
        return self.transition is not None and self.transition.status == Status.COMPLETED


class JobSource(Protocol):
    """RQ as needed by BatchRunner. Each method may raise RedisError."""

    def take(self, most: int, free: int) -> list[str]:
        """Take up to `free` ids from the queues, or up to `most` from a backlog, without waiting."""

    def give_back(self, job_ids: Iterable[str]) -> None:
        """Return these ids to their queues."""

    def refused(self, job_ids: Iterable[str]) -> None:
        """Handle ids that Postgres refused to start."""

    def show_running(self, running: Iterable[RunningJob]) -> None:
        """Show these jobs as started in RQ."""

    def show_finished(self, finished: list[FinishedAttempt]) -> None:
        """Show these results in RQ, and dispatch jobs that may start now."""

    def beat(self) -> None:
        """Show that the worker is alive; called at every check."""
