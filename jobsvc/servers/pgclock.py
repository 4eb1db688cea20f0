"""Postgres' clock, estimated as an offset to the host's clock since boot, which is never set.

A sample is Postgres' time, with the times of query and reply by the clock since boot. So the offset lies within an
interval as long as the round trip; further samples narrow it. The host's time of day is not used, so it may be wrong
or be set. The interval is in memory shared with forked processes, since child processes don't query Postgres. It needs
no lock: if two samples are written at once (race), any mix of their ends is a true interval.
"""

import logging
import mmap
import time
from datetime import UTC, datetime

logger = logging.getLogger("jobsvc.clock")

FRESH_SECONDS = 10.0
"""Age at which the offset is sampled again before it is used for ids. Clocks drift by 5 ms at most in that time."""

SAMPLE_SECONDS = 1.0
"""Minimum time between two samples taken from other queries' replies; these cost only 2 µs of arithmetic."""

MAX_DRIFT = 5e-4
"""Maximum drift between two clocks, in seconds per second: NTP's highest slew rate; quartz errs by a tenth of it."""

NOTABLE_SECONDS = 5.0
"""A larger difference of this host's time of day is logged."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # BOOTTIME also runs while the machine is suspended

# The least and the greatest offset (seconds), and the time of the last sample since boot: 0 while there is none.
_shared = memoryview(mmap.mmap(-1, 3 * 8)).cast("d")
_has_reported = False


def seconds_since_boot() -> float:
    """Return the host's time since boot, for `add_sample`."""
    return time.clock_gettime(_CLOCK)


def is_known() -> bool:
    """Return True if this process, or one that shares its memory, has taken a sample."""
    return _shared[2] != 0


def is_fresh(seconds: float = FRESH_SECONDS) -> bool:
    """Return True if the last sample is younger than `seconds`."""
    return is_known() and time.clock_gettime(_CLOCK) - _shared[2] < seconds


def add_sample(postgres_time: float, asked_at: float, answered_at: float) -> None:
    """Add a sample: Postgres' clock was at `postgres_time` (seconds since the epoch) between query and reply.

    asked_at, answered_at: the times of query and reply, by `seconds_since_boot`.
    """
    least, greatest = postgres_time - answered_at, postgres_time - asked_at
    if is_known():
        drift = MAX_DRIFT * max(answered_at - _shared[2], 0)
        before_least, before_greatest = _shared[0] - drift, _shared[1] + drift
        # Disjoint intervals: Postgres' clock was set, or a failover, or this machine was paused. Use the newest.
        if least <= before_greatest and before_least <= greatest:
            least, greatest = max(least, before_least), min(greatest, before_greatest)
    _shared[0], _shared[1], _shared[2] = least, greatest, answered_at
    _report_difference()


def now() -> float:
    """Return Postgres' time in seconds since the epoch, or this host's if there is no sample."""
    if not is_known():
        return time.time()
    return time.clock_gettime(_CLOCK) + (_shared[0] + _shared[1]) / 2


def utc_now() -> datetime:
    """Return `now` as a datetime in UTC."""
    return datetime.fromtimestamp(now(), UTC)


def from_local(moment: float) -> float:
    """Convert a time by this host's clock to Postgres' clock, both in seconds since the epoch."""
    return moment + now() - time.time()


def _report_difference() -> None:
    global _has_reported
    ahead = time.time() - now()
    if abs(ahead) < NOTABLE_SECONDS:
        _has_reported = False
    elif not _has_reported:
        _has_reported = True
        logger.warning(
            "clock: this host's time is %.0f s %s Postgres', by which jobs are timed; set both by NTP",
            abs(ahead),
            "ahead of" if ahead > 0 else "behind",
        )
