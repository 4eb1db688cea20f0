"""The statuses of a job, the transitions between them, and the outcomes of an attempt."""

from enum import StrEnum


class Status(StrEnum):
    """The state of a job."""

    PENDING = "PENDING"  # waits for a worker
    SCHEDULED = "SCHEDULED"  # submitted for a later time, or snoozed by its handler
    RETRYING = "RETRYING"  # an attempt failed, the next starts at due_at
    BLOCKED = "BLOCKED"  # jobs that it depends on have not ended
    PROCESSING = "PROCESSING"  # an attempt runs, under a lease
    COMPLETED = "COMPLETED"  # its handler returned
    FAILED = "FAILED"  # no attempt is left, or it was discarded, or it expired
    CANCELLED = "CANCELLED"  # cancelled by a client


MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.SCHEDULED, Status.PROCESSING, Status.CANCELLED, Status.FAILED}),
    Status.SCHEDULED: frozenset({Status.PENDING, Status.PROCESSING, Status.CANCELLED, Status.FAILED}),
    Status.RETRYING: frozenset({Status.PROCESSING, Status.CANCELLED, Status.FAILED}),
    Status.BLOCKED: frozenset({Status.PENDING, Status.SCHEDULED, Status.CANCELLED, Status.FAILED}),
    Status.PROCESSING: frozenset(Status) - {Status.PROCESSING, Status.BLOCKED},
    Status.COMPLETED: frozenset(),
    **dict.fromkeys((Status.FAILED, Status.CANCELLED), frozenset({Status.PENDING, Status.BLOCKED})),
}
"""The allowed transitions of a job."""

STARTABLE = tuple(status for status in Status if Status.PROCESSING in MOVES[status])
"""The statuses from which a worker may start a job."""

WAITING = (*STARTABLE, Status.BLOCKED)
"""The statuses of a job that has not started, or waits for its next attempt."""

ENDED = tuple(status for status in Status if status not in (*WAITING, Status.PROCESSING))
"""The final statuses of a job, unless it is retried by hand."""


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"  # the handler returned
    FAILED = "failed"  # it raised; retried while attempts are left
    DISCARDED = "discarded"  # it raised Discard; not retried
    TIMEOUT = "timeout"  # it was stopped at its timeout; retried while attempts are left
    LOST = "lost"  # its process died, or its lease expired; retried while attempts are left
    SNOOZED = "snoozed"  # it raised Snooze; runs again later, and this start doesn't count
    CANCELLED = "cancelled"  # a cancel was requested while it ran
    HANDED_BACK = "handed-back"  # its worker shut down; runs again at once, and this start doesn't count
