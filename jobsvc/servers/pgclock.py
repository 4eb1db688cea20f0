"""Postgres' clock, as this process knows it: an offset to a clock of its own that nobody sets.

A sample is a time that Postgres told, and when it was asked for and answered, by the host's clock since boot. So the
offset between the two clocks lies within an interval as long as the round trip. Each further sample narrows it. The
host's time of day has no part in this, so it may be wrong, or be set. The interval is in memory that forked processes
share, since a process that runs jobs asks Postgres nothing. It needs no lock: of two samples written at once, the ends
of either make a true interval.
"""

import logging
import mmap
import time
from datetime import UTC, datetime

logger = logging.getLogger("jobsvc.clock")

FRESH_SECONDS = 10.0
"""An offset older than this is learnt again before it is used for ids. Two clocks part by 5 ms in that time at most."""

SAMPLE_SECONDS = 1.0
"""Least time between two samples that cost nothing but their arithmetic, 2 µs."""

MAX_DRIFT = 5e-4
"""Seconds a second by which two clocks part: NTP slews a clock by no more, and quartz errs by a tenth of that."""

NOTABLE_SECONDS = 5.0
"""A host whose time of day is off by more is reported in the log."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine is suspended

# The least and the greatest offset, in seconds, and when the last sample was taken: 0 while there is none.
_shared = memoryview(mmap.mmap(-1, 3 * 8)).cast("d")
_has_reported = False


def seconds_since_boot() -> float:
    """Return the time by the host's clock that nobody sets, for `add_sample`."""
    return time.clock_gettime(_CLOCK)


def is_known() -> bool:
    """Return True if Postgres' time was learnt by this process, or by one that shares its memory."""
    return _shared[2] != 0


def is_fresh(seconds: float = FRESH_SECONDS) -> bool:
    """Return True if Postgres' time was learnt within the last `seconds`."""
    return is_known() and time.clock_gettime(_CLOCK) - _shared[2] < seconds


def add_sample(told: float, asked_at: float, answered_at: float) -> None:
    """Take in that Postgres' time was `told` (seconds since the epoch) at some moment between these two.

    asked_at, answered_at: by `seconds_since_boot`.
    """
    least, greatest = told - answered_at, told - asked_at
    if is_known():
        drift = MAX_DRIFT * max(answered_at - _shared[2], 0)
        before_least, before_greatest = _shared[0] - drift, _shared[1] + drift
        # Apart: Postgres' clock was set, another server took over, or this machine stood still. Then the newest counts.
        if least <= before_greatest and before_least <= greatest:
            least, greatest = max(least, before_least), min(greatest, before_greatest)
    _shared[0], _shared[1], _shared[2] = least, greatest, answered_at
    _report_difference()


def now() -> float:
    """Return Postgres' time in seconds since the epoch; this host's while Postgres' was never learnt."""
    if not is_known():
        return time.time()
    return time.clock_gettime(_CLOCK) + (_shared[0] + _shared[1]) / 2


def utc_now() -> datetime:
    """Return `now` as a datetime in UTC."""
    return datetime.fromtimestamp(now(), UTC)


def from_local(moment: float) -> float:
    """Return what Postgres' clock showed when this host's showed `moment`, both in seconds since the epoch."""
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
