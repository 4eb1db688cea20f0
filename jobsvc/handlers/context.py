"""What a handler holds while it runs: its context, and the exceptions that say how to go on."""

import logging
from collections.abc import Callable
from typing import Any

from jobsvc.handlers.retry_policy import YEAR
from jobsvc.strict_json import cut

logger = logging.getLogger("jobsvc.handler")


MAX_PROGRESS = 1000
"""Characters of a progress message: it is part of each GET and event of its job."""

MAX_LINE = 4 * 1024
"""Characters of a line that `Context.log` takes, stored and in the worker's log."""

MAX_NUMBER = 100
"""Characters of a number in an error's message; Python's integers have no end."""


class Discard(Exception):
    """Raised by a handler: fail the job now, without another attempt."""


class Snooze(Exception):
    """Raised by a handler: run the job again in `seconds`; this start doesn't count as an attempt."""

    def __init__(self, seconds: float) -> None:
        self.seconds = _not_negative(seconds)
        super().__init__(f"again in {self.seconds:g} s")


class RetryIn(Exception):
    """Raised by a handler: this attempt failed, and the next comes in `seconds`, not at its interval."""

    def __init__(self, seconds: float, message: str) -> None:
        super().__init__(message)
        self.seconds = _not_negative(seconds)


def _not_negative(seconds: float) -> float:
    number = _number(seconds)
    if number is None or not 0 <= number <= YEAR:
        raise ValueError(f"a job can wait for 0 seconds to a year, not {_shown(seconds)}")
    return number


def _percent(percent: float) -> float:
    number = _number(percent)
    if number is None or not 0 <= number <= 100:
        raise ValueError(f"progress goes from 0 to 100, not {_shown(percent)}")
    return number


def _number(value: Any) -> float | None:
    """Return any kind of number as a plain float; None for one that is too large. Raises TypeError for a text."""
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"a number is needed, not {type(value).__name__}")
    try:
        return float(value)
    except (OverflowError, ValueError):  # too large, or not a number at all
        return None


def _shown(value: Any) -> str:
    try:
        return cut(repr(value), MAX_NUMBER)
    except ValueError:  # an integer of more than 4,300 digits
        return "a larger number"


class Context:
    """One attempt, as its handler sees it.

    job_id: the job's id, a UUID as text.
    attempt, max_attempts: which attempt this is, from 1, and how many there may be.
    fence: a number that grows with every start of the job and never comes twice: pass it on to
        what you write to, and let that refuse a smaller one.
    traceparent: the W3C Trace Context of the request that made the job, None where it had none.
    """

    def __init__(
        self,
        job_id: str,
        attempt: int,
        max_attempts: int,
        fence: int,
        report: Callable[[float, str | None], None],
        keep: Callable[[str], None],
        is_cancelled: Callable[[], bool] = lambda: False,
        traceparent: str | None = None,
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.fence = fence
        self.traceparent = traceparent
        self._report = report
        self._keep = keep
        self._is_cancelled = is_cancelled

    @property
    def cancelled(self) -> bool:
        """Whether somebody called the job off.

        A handler that sees it has a second to tidy up, and is stopped then; if it returns, the job is
        CANCELLED too.
        """
        return self._is_cancelled()

    def progress(self, percent: float, message: str | None = None) -> None:
        """Show how far the job is: `percent` from 0 to 100 and a text for people."""
        self._report(_percent(percent), None if message is None else cut(str(message), MAX_PROGRESS))

    def log(self, message: str) -> None:
        """Keep a line with the attempt, and write it to the worker's log, with the job's id and attempt."""
        text = cut(str(message), MAX_LINE)
        self._keep(text)
        logger.info("%s attempt %d: %s", self.job_id, self.attempt, text)
