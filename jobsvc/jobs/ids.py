"""Job ids, UUIDv7 (RFC 9562 §5.7) by Postgres' clock, and that clock's current time."""

import os
import threading
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, func, select

from jobsvc.db.engine import statement
from jobsvc.errors import StoreUnavailable
from jobsvc.servers import pgclock

UNITS = 4096
"""Fractions of a millisecond in the 12 bits after the timestamp (RFC 9562 §6.2, method 3): 0.24 µs each."""

MAX_LEAD = 1000 * UNITS
"""Ids keep rising while the estimated time falls by less than this, 1 s. A larger one means a clock set back."""

_WITH_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))
"""Sets the variant, the two highest bits, in a byte."""


class _Source:
    """Numbers of UNITS since the epoch: unique and rising within the process."""

    def __init__(self) -> None:
        self._last = 0
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)  # fork: another thread may have locked it

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def take(self, count: int) -> int:
        """Reserve `count` consecutive numbers and return the first."""
        with self._lock:
            first = int(pgclock.now() * 1000 * UNITS)
            if 0 <= self._last - first < MAX_LEAD:
                first = self._last + 1
            self._last = first + count - 1
        return first


_source = _Source()


def make_ids(connection: Connection, count: int) -> list[str]:
    """Make ids for new jobs, in rising order, by Postgres' clock.

    As text: to make a UUID and its text takes four times as long. Queries Postgres' time over `connection` if the last
    sample is older than FRESH_SECONDS.
    """
    if not pgclock.is_fresh():
        learn_clock(connection)
    first = _source.take(count)
    random = bytearray(os.urandom(8 * count))
    random[::8] = random[::8].translate(_WITH_VARIANT)
    tails = random.hex()
    return [
        f"{unit >> 28:08x}-{unit >> 12 & 0xFFFF:04x}-7{unit % UNITS:03x}-{tails[at : at + 4]}-{tails[at + 4 : at + 16]}"
        for unit, at in zip(range(first, first + count), range(0, 16 * count, 16), strict=True)
    ]


def first_id(at: float) -> UUID:
    """Return the lowest id of the time `at`, in seconds since the epoch."""
    return UUID(int=max(int(at * 1000), 0) << 80)


def learn_clock(connection: Connection) -> None:
    """Query Postgres' time and add it as a sample; exact within a transaction, too."""
    asked_at = pgclock.seconds_since_boot()
    now = connection.execute(select(func.clock_timestamp())).scalar_one()
    pgclock.add_sample(now.timestamp(), asked_at, answered_at=pgclock.seconds_since_boot())


_next_try = 0.0


def current_time() -> datetime:
    """Return Postgres' time, within milliseconds; queries it if the last sample is older than FRESH_SECONDS.

    While Postgres is unavailable, uses earlier samples, or else this host's time. Don't call within a transaction.
    """
    global _next_try
    if not pgclock.is_fresh() and pgclock.seconds_since_boot() >= _next_try:
        _next_try = pgclock.seconds_since_boot() + pgclock.FRESH_SECONDS
        with suppress(StoreUnavailable), statement() as connection:
            learn_clock(connection)
            _next_try = 0.0
    return pgclock.utc_now()
