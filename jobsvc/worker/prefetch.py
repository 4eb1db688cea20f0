"""How many jobs a worker takes at a time.

Beyond its concurrency limit it takes at most AHEAD_SECONDS of estimated work, so that idle workers get slow jobs.
"""

AHEAD_SECONDS = 0.05
"""Estimated work that is prefetched beyond the running jobs."""

MOST_REFUSED = 100
"""Largest number of additional jobs that are prefetched because the previous ones could not be started."""

LONG_SECONDS = 1.0
"""Assumed duration of an attempt, in seconds, as long as it is not known that attempts are short."""

FIRST_WEIGHT, LAST_WEIGHT = 0.5, 0.125
"""Weights of the first attempts, and of later ones, in the moving average: eight short ones are known to be short."""


class Prefetch:
    """Estimate of how many jobs to take, from the durations of the last attempts."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._seconds_each = LONG_SECONDS  # moving average
        self._weight = FIRST_WEIGHT
        self._extra = 0

    @property
    def wants_more(self) -> bool:
        """Return True if all jobs taken last were refused: refused jobs take no time, so the next ones come at once."""
        return self._extra > 0

    def room(self, running: int) -> int:
        """Return up to how many jobs to take; 0 while more than half may run, so that the next ones come as a batch."""
        most = self._concurrency + int(self._concurrency * AHEAD_SECONDS / self._seconds_each) + self._extra
        return 0 if running > max(self._concurrency - 1, most // 2) else most - running

    def after_take(self, taken: int, started: int) -> None:
        """Take note that of so many jobs so many were started."""
        self._extra = min(2 * self._extra + 8, MOST_REFUSED) if taken and not started else 0

    def after_attempt(self, seconds: float) -> None:
        """Take note of an attempt's duration, 0 if its handler was not called or did not end."""
        if seconds:
            self._seconds_each += (max(seconds, 1e-5) - self._seconds_each) * self._weight
        self._weight = max(self._weight * 0.8, LAST_WEIGHT)

    def after_return(self) -> None:
        """Assume long attempts, since a job could not start soon; so it isn't prefetched again."""
        self._seconds_each = LONG_SECONDS
