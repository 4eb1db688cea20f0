"""Check of messages from child processes: accepts only those about attempts that run in that child."""

import logging
from collections.abc import Iterator, Mapping
from uuid import UUID

from jobsvc.worker.child import ChildProcess
from jobsvc.worker.messages import Completed, Finished, Message, PartialResult, Reported, Retired, Returned
from jobsvc.worker.running import RunningJob

logger = logging.getLogger("jobsvc.worker")


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
