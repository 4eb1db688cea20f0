"""A handler's context, and the exceptions with which it controls retries."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from jobsvc.handlers.retry_policy import YEAR
from jobsvc.strict_json import cut

logger = logging.getLogger("jobsvc.handler")


MAX_PROGRESS = 1000
"""Maximum characters of a progress message, which is part of each GET and event of its job."""

MAX_LINE = 4 * 1024
"""Maximum characters of a line of `Context.log`, both stored and in the worker's log."""

MAX_NUMBER = 100
"""Maximum characters of a number in an error message; Python's integers have any size."""


class Discard(Exception):
    """Raise it in a handler to fail the job now, without another attempt."""


class Snooze(Exception):
    """Raise it in a handler to run the job again in `seconds`; this start doesn't count as an attempt."""

    def __init__(self, seconds: float) -> None:
        self.seconds = _not_negative(seconds)
        super().__init__(f"again in {self.seconds:g} s")


class RetryAfter(Exception):
    """Raise it in a handler to fail the attempt; the next starts in `seconds` instead of the retry interval."""

    def __init__(self, seconds: float, message: str | None = None) -> None:
        self.seconds = _not_negative(seconds)
        super().__init__(f"again in {self.seconds:g} s" if message is None else message)


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
    """Return a number of any type as a float; None if it is too large or not a number. Raises TypeError for text."""
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"a number is needed, not {type(value).__name__}")
    try:
        return float(value)
    except (OverflowError, ValueError):  # too large, or not a number
        return None


def _shown(value: Any) -> str:
    try:
        return cut(repr(value), MAX_NUMBER)
    except ValueError:  # an integer of more than 4,300 digits
        return "a larger number"


class Context:
    """The attempt that a handler runs.

    job_id: the job's id, a UUID as text.
    attempt, max_attempts: this attempt's number, from 1, and the highest possible one.
    fence: a number that rises with every start of the job. Pass it to the systems that you write to,
        and let them reject a smaller one.
    traceparent: the W3C Trace Context of the request that created the job, or None.
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
        dependencies: Callable[[str], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.fence = fence
        self.traceparent = traceparent
        self._report = report
        self._keep = keep
        self._is_cancelled = is_cancelled
        self._find_dependencies = dependencies
        self.has_read_dependencies = False

    @property
    def dependencies(self) -> Mapping[str, Any]:
        """The result of each COMPLETED job that this one depends on, by id; each access reads it from Postgres.

        In an async handler an access blocks the event loop for a round trip, some milliseconds.
        """
        self.has_read_dependencies = True
        return self._find_dependencies(self.job_id)

    @property
    def cancelled(self) -> bool:
        """True once a cancel of the job was requested.

        A handler that reads True has a second to clean up before it is stopped; if it returns, the job is
        CANCELLED, too.
        """
        return self._is_cancelled()

    def progress(self, percent: float, message: str | None = None) -> None:
        """Report the job's progress: `percent` from 0 to 100, and a text for users."""
        self._report(_percent(percent), None if message is None else cut(str(message), MAX_PROGRESS))

    def log(self, message: str) -> None:
        """Store a line in the attempt's log, and write it to the worker's log with the job's id and attempt."""
        text = cut(str(message), MAX_LINE)
        self._keep(text)
        logger.info("%s attempt %d: %s", self.job_id, self.attempt, text)
