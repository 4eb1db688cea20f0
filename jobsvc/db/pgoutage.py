"""Outages of Postgres as seen by this process. Each is logged once for all threads, with its cause.

An outage is over when the failed operation succeeds: a new connection, or, if Postgres rejected a statement, the same
function again. Until then other operations may succeed: a standby or a server with a full disk still serves reads.
"""

import logging
import os
import re
import time
from collections.abc import Callable
from types import CodeType

from sqlalchemy.exc import DBAPIError

from jobsvc.printable import one_line
from jobsvc.servers.outages import OutageLog

logger = logging.getLogger("jobsvc.db")

READ_ONLY = "25006"
"""SQLSTATE of a write on a standby (in a failover, before its promotion), or with read-only transactions."""

NO_UNLOGGED_TABLE = "0A000"
"""SQLSTATE of a statement on the counters on a standby, which has no unlogged tables."""

DISK_FULL = "53100"
"""SQLSTATE of a write on a full disk. A smaller write may still succeed."""

PROBE_SECONDS = 1.0
"""Minimum seconds between two trial writes that check for the end of an outage."""

FULL_POOL_SECONDS = 60.0
"""Minimum seconds between two log lines about a full pool."""

_log = OutageLog("Postgres", logger)


class _State:
    """The failures of the current outage. Not locked: a race only logs a line twice."""

    needs_connection = False
    refused: frozenset[CodeType] = frozenset()
    needs_write = False
    next_probe = 0.0
    next_full_pool_line = 0.0


_state = _State()


def failed(cause: str, code: str, caller: CodeType) -> None:
    """Log the start of an outage, unless it is known. `code` is an SQLSTATE, empty if the connection failed."""
    _log.begin(f"{code}: {cause}" if code else cause)
    if not code:
        _state.needs_connection = True
    elif code[:2] not in ("08", "57"):
        _state.refused |= {caller}
        _state.needs_write = _state.needs_write or code in (READ_ONLY, DISK_FULL)


def connected() -> None:
    """Record that a connection was opened."""
    _state.needs_connection = False


def succeeded(caller: CodeType, probe_writes: Callable[[], None]) -> None:
    """Log the end of the outage, if this success proves it.

    caller: the function that used the connection. probe_writes: raises unless Postgres accepts writes.
    """
    if _log.is_on:
        _end_if_over(caller, probe_writes)


def _end_if_over(caller: CodeType, probe_writes: Callable[[], None]) -> None:
    if _state.needs_connection or (_state.refused and caller not in _state.refused):
        return
    if _state.needs_write:
        if time.monotonic() < _state.next_probe:
            return
        _state.next_probe = time.monotonic() + PROBE_SECONDS
        try:
            probe_writes()
        except Exception:
            return
    _state.refused, _state.needs_write = frozenset(), False
    _log.end()


def pool_is_full() -> None:
    """Log, at most every FULL_POOL_SECONDS, that all connections of this process are in use; this is no outage."""
    if time.monotonic() >= _state.next_full_pool_line:
        _state.next_full_pool_line = time.monotonic() + FULL_POOL_SECONDS
        logger.warning("Postgres: all connections of this process were in use for too long; see JOBSVC_DB_CONNECTIONS")


_SECRET = re.compile(r"(password\s*=\s*|://[^:@/\s]*:)\S+", re.IGNORECASE)


def cause_of(error: DBAPIError) -> str:
    """Return the first line of the message of Postgres or the driver, with passwords masked."""
    lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    return one_line(_SECRET.sub(r"\1***", lines[0]))


os.register_at_fork(after_in_child=_log.start_afresh)
