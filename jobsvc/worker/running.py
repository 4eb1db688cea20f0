"""What a worker holds: the jobs that it has started, and how they ended; and what that needs of RQ."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from jobsvc.jobs import AttemptResult, JobTransition, StartedAttempt, completed, handed_back
from jobsvc.states import Status
from jobsvc.worker.child import ChildProcess


@dataclass(eq=False)
class RunningJob:
    """A job that this worker has started, in its slot. Times are monotonic seconds."""

    started: StartedAttempt
    slot: int
    child: ChildProcess
    since: float
    renew_at: float
    execution_id: str = ""  # by which RQ shows it, once it does
    is_cancel_requested: bool = False
    is_stopped_by_rq: bool = False
    is_ended: bool = False
    stop_by: float = math.inf  # its handler was told to stop, and has to by then
    overdue: BaseException | None = None  # why its process is to end
    partial_result: AttemptResult | None = None
    is_asked: bool = False  # for its last words, before its process is killed

    @property
    def begun(self) -> float:
        """When its handler was called; 0 if it was not."""
        return self.child.begun(self.slot)

    def completed(self) -> AttemptResult:
        """The end that completes the job, and leaves nothing behind."""
        return completed(self.started.job_id, self.started.fence)

    def handed_back(self, begun: bool) -> AttemptResult:
        """The end that puts the job back, uncounted."""
        return handed_back(self.started.job_id, self.started.fence, begun)


@dataclass(frozen=True)
class FinishedAttempt:
    """How an attempt ended, after how many seconds, and where that put the job: nowhere, if it was no longer ours."""

    held: RunningJob
    end: AttemptResult
    seconds: float
    verdict: JobTransition | None = None

    @property
    def is_completed(self) -> bool:
        """Whether that completed the job."""
        return self.verdict is not None and self.verdict.status == Status.COMPLETED


class JobSource(Protocol):
    """What the batches need of RQ. Each of these may raise RedisError."""

    def take(self, most: int, free: int) -> list[str]:
        """Up to `free` ids from the queues, or up to `most` where many wait, without waiting."""

    def give_back(self, job_ids: Iterable[str]) -> None:
        """Put these ids where they were taken from."""

    def refused(self, job_ids: Iterable[str]) -> None:
        """These ids were not to be started."""

    def show_begun(self, held: Iterable[RunningJob]) -> None:
        """Show that these run."""

    def show_ended(self, ended: list[FinishedAttempt]) -> None:
        """Show how these ended, and push who can be dispatched now."""

    def beat(self) -> None:
        """Show that the worker lives; called at every look."""
