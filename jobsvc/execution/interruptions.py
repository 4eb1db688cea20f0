"""Exceptions that end a running handler from outside, raised by its deadline."""

CANCEL_NOTICE_SECONDS = 1.0
"""Seconds between `ctx.cancelled` becoming True and Cancelled being raised in the handler."""

CANCEL_GRACE_SECONDS = 1.5
"""Seconds a handler gets to stop after Cancelled. With the time to notice a cancel, it must stay well below 5 s."""


class Interruption(BaseException):
    """Raised by a deadline in a handler. Not an Exception, so that `except Exception` doesn't swallow it."""


class AttemptTimeout(Interruption):
    """The attempt took longer than its timeout."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(f"the attempt took longer than its {'time' if seconds is None else f'{seconds:g} s'}")


class WorkerShutdown(Interruption):
    """The worker shuts down, and the handler did not finish within the time left."""


class Cancelled(Interruption):
    """A cancel of the job was requested."""


class LimitReached(Interruption):
    """The time limit of `Deadline.limited` was reached."""
