"""Commands of a worker to its child processes, and their messages to it.

Messages are JSON that is validated, since a handler may have written it: the kind of the message, a space, and its
fields as an array. Commands are pickled.
"""

from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from jobsvc.jobs import AttemptResult, Failure, StartedAttempt
from jobsvc.jobs.log_lines import Lines
from jobsvc.states import Outcome

UNSHOWN = "Unknown"
"""Error type of an attempt whose result can't be encoded or described."""

MAX_ERROR = 1000
"""Characters of the failure message for a result that can't be encoded."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Work(NamedTuple):
    """A job to run, and when (monotonic seconds) it may be started at the latest."""

    slot: int
    started: StartedAttempt
    latest: float


class Run(NamedTuple):
    """Command: run these jobs."""

    work: list[Work]


class Stored(NamedTuple):
    """Command: drop the copies of the results in these slots, which are stored."""

    slots: list[int]


class Cancel(NamedTuple):
    """Command: cancel the running job in this slot."""

    slot: int


class Interrupt(NamedTuple):
    """Command: raise WorkerShutdown in the handler of the job in this slot."""

    slot: int


class SendPartialResult(NamedTuple):
    """Command: send the PartialResult of the attempt in this slot, which does not stop."""

    slot: int


class ReturnUnstarted(NamedTuple):
    """Command: return the jobs that have not started."""


Command = Run | Stored | Cancel | Interrupt | SendPartialResult | ReturnUnstarted


class Completed(NamedTuple):
    """The attempt in this slot completed, without a result or anything else to store; it took `seconds`."""

    slot: int
    seconds: Seconds


class Finished(NamedTuple):
    """The attempt in this slot finished with the result `result`; it took `seconds`."""

    slot: int
    result: AttemptResult
    seconds: Seconds


class Returned(NamedTuple):
    """The jobs in these slots have not started, and will not start in this process."""

    slots: list[int]


class Reported(NamedTuple):
    """New progress of the running attempt in this slot, new lines of its log, or both."""

    slot: int
    job_id: UUID
    fence: int
    progress: dict[str, Any] | None
    lines: Lines | None


class PartialResult(NamedTuple):
    """The result so far of an attempt that does not stop."""

    slot: int
    result: AttemptResult


class Retired(NamedTuple):
    """The process runs no more jobs: one of them left it in a state that can't be restored."""


Message = Completed | Finished | Returned | Reported | PartialResult | Retired

_KINDS: dict[bytes, TypeAdapter[Message]] = {
    kind.__name__.lower().encode(): TypeAdapter(kind) for kind in (Finished, Returned, Reported, PartialResult, Retired)
}


class Garbage(Exception):
    """The frame is not a valid message; the text gives the reason in one short line."""


def encode(message: Message) -> bytes | None:
    """Return the message as a frame's content; None if it can't be encoded.

    A result that can't be encoded is sent as a failure of its attempt.
    """
    try:
        return _encode(message)
    except (PydanticSerializationError, ValueError, RecursionError, MemoryError) as error:
        if not isinstance(message, Finished | PartialResult):
            return None
        failure = Failure(UNSHOWN, f"the outcome can't be sent: {error}"[:MAX_ERROR])
        result = AttemptResult(message.result.job_id, message.result.fence, Outcome.FAILED, failure=failure)
        return _encode(message._replace(result=result))


def _encode(message: Message) -> bytes:
    return type(message).__name__.lower().encode() + b" " + to_json(tuple(message))


def decode(frame: bytes) -> Message:
    """Parse a frame's content. Raises Garbage. Nothing in the frame can run code."""
    kind, _, fields = frame.partition(b" ")
    if (adapter := _KINDS.get(kind)) is None:
        raise Garbage(f"unknown kind {kind[:40]!r}")
    try:
        return adapter.validate_json(fields, strict=True)
    except (ValidationError, ValueError, RecursionError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise Garbage(f"{kind.decode()}: {detail[:200]}") from None
