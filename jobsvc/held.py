"""What a worker holds: the jobs that it has started, and their ends until they are stored and shown."""

import math
from dataclasses import dataclass

from jobsvc.horse import Horse
from jobsvc.jobs import AttemptEnd, Started, Verdict
from jobsvc.states import Outcome


@dataclass(eq=False)
class Held:
    """A job that this worker has started, in its slot. Times are monotonic seconds."""

    started: Started
    slot: int
    horse: Horse
    since: float
    renew_at: float
    execution_id: str = ""  # by which RQ shows it, once it does
    is_called_off: bool = False
    is_stopped_by_rq: bool = False
    is_ended: bool = False
    stop_by: float = math.inf  # its handler was told to stop, and has to by then
    overdue: BaseException | None = None  # why its process is to end
    last_words: AttemptEnd | None = None

    @property
    def begun(self) -> float:
        """When its handler was called; 0 if it was not."""
        return self.horse.begun(self.slot)

    def handed_back(self, begun: bool) -> AttemptEnd:
        """The end that puts the job back, uncounted."""
        return AttemptEnd(self.started.job_id, self.started.fence, Outcome.HANDED_BACK, delay=0, begun=begun)


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, after how many seconds, and where that put the job: nowhere, if it was no longer ours."""

    held: Held
    end: AttemptEnd
    seconds: float
    verdict: Verdict | None = None
