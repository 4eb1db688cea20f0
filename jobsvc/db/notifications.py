"""Connections that receive notifications (LISTEN)."""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from jobsvc.db.engine import engine
from jobsvc.errors import StoreUnavailable

FAILURES = (psycopg2.Error, SQLAlchemyError, StoreUnavailable, OSError)
"""What the functions here raise while no connection can be had, or the connection is lost."""

CHANNEL = "SELECT 'jobsvc_' || 'jobs'::regclass::oid"
"""Query for the channel's name. Channels are shared by a database; the number of our table distinguishes schemas."""

UNLISTEN_TRIES = 5
"""Number of tries to reach the session that listens; a pooler usually gives the one that was used last."""


class Subscription:
    """A connection with its LISTEN. Not thread-safe."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.channel = ""
        self._session = 0  # process id of the server's session

    def listen(self) -> None:
        """Execute LISTEN."""
        self.channel = str(self._query(CHANNEL))
        # One query, so that behind a pooler both run in one session.
        self._session = self._query(f'LISTEN "{self.channel}"; SELECT pg_backend_pid()')

    def unlisten(self) -> None:
        """Execute UNLISTEN, behind a transaction pooler in the same session if that can be reached."""
        for _ in range(UNLISTEN_TRIES):
            if self._query(f'UNLISTEN "{self.channel}"; SELECT pg_backend_pid()') == self._session:
                return

    def wait(self, seconds: float) -> list[str]:
        """Wait for notifications for up to `seconds`; returns their payloads."""
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        if poll.poll(max(seconds, 0) * 1000):
            self._connection.poll()
        payloads = [one.payload for one in self._connection.notifies]
        self._connection.notifies.clear()
        return payloads

    def _query(self, statement: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0]


@contextmanager
def subscription() -> Iterator[Subscription]:
    """Yield a connection of this process' pool, among JOBSVC_DB_CONNECTIONS; it is closed after the block."""
    pooled = engine().raw_connection()
    try:
        yield Subscription(pooled.dbapi_connection)
    finally:
        pooled.invalidate()


def notify(channel: str, payload: str) -> None:
    """Send a notification over another connection of the pool. Logs no outage."""
    pooled = engine().raw_connection()
    try:
        pooled.cursor().execute("SELECT pg_notify(%s, %s)", (channel, payload))
    except BaseException:
        pooled.invalidate()
        raise
    finally:
        pooled.close()
