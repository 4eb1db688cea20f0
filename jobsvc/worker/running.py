"""A worker's running jobs, the check of messages about them, and finished attempts."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from queue import SimpleQueue
from typing import NamedTuple
from uuid import UUID

from jobsvc.handlers import Handler
from jobsvc.jobs import AttemptResult, JobTransition, StartedAttempt
from jobsvc.states import Status
from jobsvc.worker.child import ChildProcess
from jobsvc.worker.messages import Completed, Finished, Message, PartialResult, Reported, Retired, Returned

logger = logging.getLogger("jobsvc.worker")


class Phase(Enum):
    """Phase of a job in a child process; MOVES has the legal moves."""

    WAITING = auto()
    """Given to the child process."""
    RUNNING = auto()
    """The handler was called."""
    STOPPING = auto()
    """The handler was interrupted, because of a cancel or at a shutdown, and has until `stop_by` to stop."""
    KILLING = auto()
    """The handler did not stop; its process is killed at `stop_by`, or once it has sent the partial result."""
    FINISHED = auto()
    """The attempt has a result."""


MOVES = {
    Phase.WAITING: (Phase.RUNNING, Phase.FINISHED),
    Phase.RUNNING: (Phase.STOPPING, Phase.KILLING, Phase.FINISHED),
    Phase.STOPPING: (Phase.KILLING, Phase.FINISHED),
    Phase.KILLING: (Phase.FINISHED,),
    Phase.FINISHED: (),
}
"""To FINISHED from each phase, since a result may come at any time. From RUNNING to KILLING at a timeout, at which the
child process itself interrupts the handler."""


class Request(Enum):
    """What another thread asks of a running job."""

    CANCEL = auto()
    STOP_BY_RQ = auto()
    """RQ's command stop-job: as a cancel, and RQ shows the job as stopped."""
    LEASE_LOST = auto()
    """Nothing more can be stored for the attempt."""


Requests = SimpleQueue[tuple["RunningJob", Request]]


@dataclass(eq=False)
class RunningJob:
    """A job that this worker has started, with its slot. Times are monotonic seconds.

    Only the worker's main thread changes it. Other threads call `post`; the main thread applies these requests
    before its next check.
    """

    started: StartedAttempt
    slot: int
    child: ChildProcess
    since: float
    requests: Requests
    phase: Phase = Phase.WAITING
    stop_by: float = math.inf
    kill_reason: BaseException | None = None  # from KILLING on: becomes the attempt's failure
    partial_result: AttemptResult | None = None
    is_partial_result_requested: bool = False
    is_cancel_requested: bool = False
    is_stopped_by_rq: bool = False
    has_lost_lease: bool = False
    handler: Handler | None = None
    execution_id: str = ""  # RQ's, once RQ shows it as started

    @property
    def called_at(self) -> float:
        """Return when its handler was called; 0 before."""
        return self.child.called_at(self.slot)

    @property
    def is_async(self) -> bool:
        """Return True if it runs on an event loop."""
        return self.handler is not None and self.handler.is_async

    @property
    def is_running(self) -> bool:
        """Return True while its handler runs. From any thread."""
        return bool(self.called_at) and self.phase is not Phase.FINISHED

    def move(self, phase: Phase) -> None:
        """Enter the next phase. Raises RuntimeError unless MOVES allows it."""
        if phase not in MOVES[self.phase]:
            raise RuntimeError(f"job {self.started.job_id}: no move from {self.phase.name} to {phase.name}")
        self.phase = phase

    def update_phase(self) -> Phase:
        """Enter RUNNING if the child process has called the handler; return the phase."""
        if self.phase is Phase.WAITING and self.called_at:
            self.move(Phase.RUNNING)
        return self.phase

    def post(self, request: Request) -> None:
        """Post a request to the worker's main thread. From any thread."""
        self.requests.put((self, request))

    def on_cancel(self) -> None:
        """Post a cancel; called by the lease keeper."""
        self.post(Request.CANCEL)

    def on_lost(self) -> None:
        """Post the loss of the lease; called by the lease keeper."""
        self.post(Request.LEASE_LOST)

    def apply(self, request: Request) -> None:
        """Apply a posted request; without effect on a finished attempt."""
        if self.phase is Phase.FINISHED:
            return
        match request:
            case Request.CANCEL:
                self.is_cancel_requested = True
            case Request.STOP_BY_RQ:
                self.is_cancel_requested = self.is_stopped_by_rq = True
            case Request.LEASE_LOST:
                self.has_lost_lease = True


def apply_all(requests: Requests) -> None:
    """Apply all posted requests. Main thread only."""
    while not requests.empty():
        job, request = requests.get()
        job.apply(request)


class FinishedAttempt(NamedTuple):
    """A finished attempt: result, duration and stored transition (`transition`), None if the lease was lost."""

    job: RunningJob
    result: AttemptResult
    seconds: float
    transition: JobTransition | None = None

    @property
    def is_completed(self) -> bool:
        """Return True if the attempt completed the job."""
        return self.transition is not None and self.transition.status == Status.COMPLETED


def checked_messages(child: ChildProcess, running: Mapping[int, RunningJob]) -> Iterator[Message]:
    """Yield the child's new messages about its own attempts; others are logged and dropped.

    running: the worker's jobs by slot, read again for each message.
    """
    for message in child.messages():
        if _is_of_its_own(message, child, running):
            yield message
        elif not isinstance(message, Reported | PartialResult):  # these may just be late
            logger.warning(
                "child process %d: message dropped: %s of no attempt there", child.pid, type(message).__name__.lower()
            )


def _is_of_its_own(message: Message, child: ChildProcess, running: Mapping[int, RunningJob]) -> bool:
    match message:
        case Completed(slot, _):
            return _find(slot, child, running) is not None
        case Finished(slot, result, _) | PartialResult(slot, result):
            return _is_of(result.job_id, result.fence, _find(slot, child, running))
        case Reported(slot, job_id, fence):
            return _is_of(job_id, fence, _find(slot, child, running))
        case Returned(slots):
            found_all = [_find(slot, child, running) for slot in set(slots)]
            return len(found_all) == len(slots) and all(one is not None and not one.called_at for one in found_all)
        case Retired():
            return True


def _find(slot: int, child: ChildProcess, running: Mapping[int, RunningJob]) -> RunningJob | None:
    found = running.get(slot)
    return found if found is not None and found.child is child else None


def _is_of(job_id: UUID, fence: int, found: RunningJob | None) -> bool:
    return found is not None and (job_id, fence) == (found.started.job_id, found.started.fence)
