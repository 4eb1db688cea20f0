"""Keys with withheld jobs: the relay goes through them in turn, and to rate keys also when their next slot is free."""

import math
import time
from collections.abc import Collection, Sequence

from jobsvc import jobs
from jobsvc.jobs import Dispatch, Lane, Wait

MOST_KEYS = 10_000
"""Number of rate keys whose times are kept; `step` finds the others again."""

LONGEST_PAUSE = 1.0
"""Longest pause (seconds) between two checks of a rate key all of whose free slots are for jobs in RQ."""


class RateTimetable:
    """The moments (monotonic seconds) at which rate keys with withheld jobs are to be checked."""

    def __init__(self) -> None:
        self._next_at: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def add(self, keys: Collection[str]) -> None:
        """Have these keys checked now, unless the time of their check is known."""
        for key in keys:
            if len(self._next_at) < MOST_KEYS:
                self._next_at.setdefault(key, 0.0)

    def due(self, most: int) -> list[str]:
        """Return up to `most` keys that are to be checked now, the longest due first."""
        now = time.monotonic()
        due = sorted((at, key) for key, at in self._next_at.items() if at <= now)
        return [key for _, key in due[:most]]

    def plan(self, keys: Collection[str], waits: dict[str, Wait]) -> None:
        """Plan the next checks of these keys, which were checked now; keys without a wait are dropped."""
        now = time.monotonic()
        for key in keys:
            if (wait := waits.get(key)) is None:
                self._next_at.pop(key, None)
                self._pauses.pop(key, None)
                continue
            pause = wait.seconds
            if wait.is_in_rq:  # as soon as its jobs have started, the wait is exact; maybe no worker takes them
                pause = max(pause, min(2 * self._pauses.get(key, 0.0), LONGEST_PAUSE))
                self._pauses[key] = pause
            else:
                self._pauses.pop(key, None)
            self._next_at[key] = now + pause

    def seconds_to_next(self) -> float:
        """Return the seconds until the next check; infinite without any."""
        return max(min(self._next_at.values(), default=math.inf) - time.monotonic(), 0.0)


class WithheldKeys:
    """The keys with withheld jobs that one relay knows, and the places from which it goes on to others."""

    def __init__(self, batch: int) -> None:
        self.rates = RateTimetable()
        self._batch = batch
        self._last_concurrency_key = self._last_rate_key = ""
        self._last_pruned = ""
        self._reached: dict[str, Lane] = {}

    def step(self) -> Sequence[Dispatch]:
        """Claim jobs of up to `batch` concurrency keys, and have as many rate keys checked; in turn."""
        limited = jobs.withheld_rate_keys(self._last_rate_key, self._batch)
        self._last_rate_key = limited[-1] if len(limited) == self._batch else ""
        self.rates.add(limited)
        keys = jobs.withheld_concurrency_keys(self._last_concurrency_key, self._batch)
        self._last_concurrency_key = keys[-1] if len(keys) == self._batch else ""
        return self.claim(keys, ())

    def claim(self, concurrency_keys: Collection[str], rate_keys: Collection[str]) -> list[Dispatch]:
        """Claim jobs of these keys that may start, up to `batch`, and plan the next checks of the rate keys."""
        claimed = jobs.claim_withheld(concurrency_keys, rate_keys, self._batch, self._reached)
        for key in (*concurrency_keys, *rate_keys):
            self._reached.pop(key, None)
        self._reached |= claimed.reached
        self.rates.plan(rate_keys, claimed.waits)
        return claimed.jobs

    def prune_starts(self) -> bool:
        """Delete starts of rate keys that no limit needs any more, of some keys, in turn; returns True if more wait."""
        deleted, self._last_pruned = jobs.prune_starts(self._last_pruned, self._batch)
        return deleted == self._batch
