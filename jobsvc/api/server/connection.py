"""The client of a request under granian: when it has gone, who waits for it hears of that."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from jobsvc.api.server.bodies import Overdue

LONGEST_SECONDS = 600.0
"""A client is kept waiting, or is sent a stream, for so long; then it has to come again.

Streams that nobody reads look like any other, so they hold their places no longer than this. EventSource comes back.
"""


class Connection:
    """See `waiting_client.Client`. Close it when the request is answered."""

    def __init__(self, address: str, protocol: Any, loop: asyncio.AbstractEventLoop, overdue: Overdue) -> None:
        self.address = address
        self._protocol = protocol
        self._loop = loop
        self._overdue = overdue
        self._future: Any = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call this, in the event loop, once the client has gone, or was kept waiting for LONGEST_SECONDS."""
        self._loop.call_soon_threadsafe(self._watch, callback)

    def _watch(self, callback: Callable[[], None]) -> None:
        if not self._is_closed:
            self._task = self._loop.create_task(self._wait(callback))

    async def _wait(self, callback: Callable[[], None]) -> None:
        await self.gone(time.monotonic() + LONGEST_SECONDS)
        callback()

    async def gone(self, deadline: float) -> None:
        """Wait until the client has gone, this is closed, or the deadline."""
        self._future = self._protocol.client_disconnect()
        with contextlib.suppress(TimeoutError):
            await self._overdue.wait(self._future, deadline)

    def close(self) -> None:
        """Watch no longer."""
        self._is_closed = True
        if self._task is not None and not self._task.done() and self._future is not None:
            self._future.cancel()
