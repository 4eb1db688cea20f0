"""The outages of a server, as one process sees them: told once when one begins, and once when it is over."""

import logging
import math
import time
from types import TracebackType

from jobsvc.config import settings


class Server:
    """`with` it around what a server is asked: its failures are swallowed, and told once until it is back.

    `away` and `back` say what that means for those who wait.
    """

    def __init__(
        self,
        name: str,
        failure: type[Exception],
        logger: logging.Logger,
        away: str = "jobs wait until it is back",
        back: str = "what waits goes on now",
    ) -> None:
        self._name = name
        self._failure = failure
        self._logger = logger
        self._away, self._back = away, back
        self._up_since: float | None = -math.inf  # None while it is away
        self._retry_at = 0.0

    @property
    def seconds_up(self) -> float:
        """For how long it has been up, as far as one knows; endless, if it never was away."""
        return 0.0 if self._up_since is None else time.monotonic() - self._up_since

    def is_worth_a_try(self) -> bool:
        """Whether it is up, as far as one knows, or wasn't tried for JOBSVC_SWEEP_SECONDS."""
        return self._up_since is not None or time.monotonic() >= self._retry_at

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        was_up = self._up_since is not None
        if isinstance(error, self._failure):
            self._up_since = None
            self._retry_at = time.monotonic() + settings().JOBSVC_SWEEP_SECONDS
            if was_up:
                self._logger.warning("%s can't be reached; %s: %s", self._name, self._away, error)
            return True
        if error is None and not was_up:
            self._up_since = time.monotonic()
            self._logger.info("%s is back; %s", self._name, self._back)
        return False
