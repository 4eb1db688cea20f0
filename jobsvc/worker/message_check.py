"""What a worker takes of its children's messages: those that are of an attempt which that child runs."""

import logging
from collections.abc import Iterator, Mapping
from uuid import UUID

from jobsvc.worker.child import ChildProcess
from jobsvc.worker.messages import Completed, Ended, LastWords, Message, Reported, Retired, Returned
from jobsvc.worker.running import RunningJob

logger = logging.getLogger("jobsvc.worker")


def checked_messages(horse: ChildProcess, held: Mapping[int, RunningJob]) -> Iterator[Message]:
    """Yield what this child has sent since, as far as it can be acted upon; the rest is logged and dropped.

    held: the worker's jobs by their slots, looked at anew for each message.
    """
    for message in horse.messages():
        if _is_of_its_own(message, horse, held):
            yield message
        elif not isinstance(message, Reported | LastWords):  # those may just be late
            logger.warning(
                "child process %d: message dropped: %s of no attempt there", horse.pid, type(message).__name__.lower()
            )


def _is_of_its_own(message: Message, horse: ChildProcess, held: Mapping[int, RunningJob]) -> bool:
    match message:
        case Completed(slot, _):
            return _find(slot, horse, held) is not None
        case Ended(slot, end, _) | LastWords(slot, end):
            return _is_of(end.job_id, end.fence, _find(slot, horse, held))
        case Reported(slot, job_id, fence):
            return _is_of(job_id, fence, _find(slot, horse, held))
        case Returned(slots):
            found_all = [_find(slot, horse, held) for slot in set(slots)]
            return len(found_all) == len(slots) and all(one is not None and not one.begun for one in found_all)
        case Retired():
            return True


def _find(slot: int, horse: ChildProcess, held: Mapping[int, RunningJob]) -> RunningJob | None:
    found = held.get(slot)
    return found if found is not None and found.horse is horse else None


def _is_of(job_id: UUID, fence: int, found: RunningJob | None) -> bool:
    return found is not None and (job_id, fence) == (found.started.job_id, found.started.fence)
