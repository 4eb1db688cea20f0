"""The client of a request under granian: runs a callback when it has disconnected."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from jobsvc.api.server.bodies import Overdue

LONGEST_SECONDS = 600.0
"""Maximum time that a client waits or is sent a stream; then it has to reconnect.

A stream without a reader can't be recognised, so this limits how long it keeps its slot. EventSource reconnects.
"""


class Connection:
    """Implements `clients.Client`. Close it when the request is answered."""

    def __init__(self, address: str, protocol: Any, loop: asyncio.AbstractEventLoop, overdue: Overdue) -> None:
        self.address = address
        self._protocol = protocol
        self._loop = loop
        self._overdue = overdue
        self._future: Any = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called on the event loop once the client disconnects, or after LONGEST_SECONDS."""
        self._loop.call_soon_threadsafe(self._watch, callback)

    def _watch(self, callback: Callable[[], None]) -> None:
        if not self._is_closed:
            self._task = self._loop.create_task(self._wait(callback))

    async def _wait(self, callback: Callable[[], None]) -> None:
        await self.wait_for_disconnect(time.monotonic() + LONGEST_SECONDS)
        callback()

    async def wait_for_disconnect(self, deadline: float) -> None:
        """Wait until the client disconnects, this is closed, or the deadline (monotonic seconds)."""
        self._future = self._protocol.client_disconnect()
        with contextlib.suppress(TimeoutError):
            await self._overdue.wait(self._future, deadline)

    def close(self) -> None:
        """Stop watching the client."""
        self._is_closed = True
        if self._task is not None and not self._task.done() and self._future is not None:
            self._future.cancel()
