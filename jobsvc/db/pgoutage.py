"""The outages of Postgres as this process sees them: whichever thread meets one, the log shows it once, with its cause.

An outage is over when what failed has worked: a new connection, where none could be made, or, where Postgres refused
something, the same function again. Others may well work meanwhile: reading on a standby or a full disk.
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
"""SQLSTATE of a write on a standby, as after a failover until it is promoted, or with transactions read-only."""

DISK_FULL = "53100"
"""SQLSTATE of a write for which the disk has no room. A smaller one may well find some."""

PROBE_SECONDS = 1.0
"""Writes are tried at most this often, to see whether there is room again."""

FULL_POOL_SECONDS = 60.0
"""Pause between two log lines that say that the pool is full."""

_log = OutageLog("Postgres", logger)


class _State:
    """What the outage that is on began with. Plain assignments; two threads that meet only log a line twice."""

    needs_connection = False
    refused: frozenset[CodeType] = frozenset()
    needs_write = False
    next_probe = 0.0
    next_full_pool_line = 0.0


_state = _State()


def failed(cause: str, code: str, caller: CodeType) -> None:
    """Log that an outage began, unless it is known. `code` is an SQLSTATE, empty if the connection failed."""
    _log.begin(f"{code}: {cause}" if code else cause)
    if not code:
        _state.needs_connection = True
    elif code[:2] not in ("08", "57"):
        _state.refused |= {caller}
        _state.needs_write = _state.needs_write or code in (READ_ONLY, DISK_FULL)


def connected() -> None:
    """Note that a connection could be made."""
    _state.needs_connection = False


def succeeded(caller: CodeType, probe_writes: Callable[[], None]) -> None:
    """Log that the outage is over, if this success shows it.

    caller: the function that used the connection. probe_writes: raises unless Postgres takes writes.
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
    """Log, now and then, that all connections of this process are in use: no outage, but worth to know."""
    if time.monotonic() >= _state.next_full_pool_line:
        _state.next_full_pool_line = time.monotonic() + FULL_POOL_SECONDS
        logger.warning("Postgres: all connections of this process were in use for too long; see JOBSVC_DB_CONNECTIONS")


_SECRET = re.compile(r"(password\s*=\s*|://[^:@/\s]*:)\S+", re.IGNORECASE)


def cause_of(error: DBAPIError) -> str:
    """Return the first line of what Postgres or the driver said, without anything that looks like a password."""
    lines = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
    return one_line(_SECRET.sub(r"\1***", lines[0]))


os.register_at_fork(after_in_child=_log.start_afresh)
