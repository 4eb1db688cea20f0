"""Request bodies, read on the event loop within a deadline and a memory budget."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from typing import Any

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, RequestTimeout, ServiceUnavailable

from jobsvc.api.problems import RETRY_AFTER_SECONDS
from jobsvc.api.server.budget import Budget

SECONDS = 30.0
"""Time allowed for a body, counted from the head of its request, plus that for its size (BYTES_PER_SECOND)."""

BYTES_PER_SECOND = 64 * 1024
"""Each such part of a body adds one second to its time."""

SMALL = 64 * 1024
"""Bodies up to this size are read in one go and need no budget, so that only large ones are rejected if it is full."""

BUDGET_BYTES = 64 * 1024 * 1024
"""Memory for all bodies larger than SMALL, plus that of LARGEST_BODIES."""

LARGEST_BODIES = 2
"""Number of bodies of the largest allowed size whose memory is added to BUDGET_BYTES."""

LINGER_SECONDS = 2.0
"""Time for which the rest of a rejected body is read and discarded, so that its client reads the response."""

CHECK_SECONDS = 0.25
"""Pause between two checks for overdue reads."""

LAST_SECONDS = 0.5
"""Time that reads still have at shutdown: a body that was sent before has arrived by then."""

_CUT_OFF = "The body is shorter than announced."


class Overdue:
    """Cancels granian's futures at their deadlines. One timer per future would cost more than all the rest."""

    def __init__(self) -> None:
        self._deadlines: dict[Any, float] = {}
        self._latest = math.inf  # monotonic seconds

    async def wait(self, future: Any, deadline: float) -> Any:
        """Return the future's result. Raises TimeoutError at the deadline, or LAST_SECONDS after `close`."""
        self._deadlines[future] = min(deadline, self._latest)
        try:
            return await future
        except asyncio.CancelledError:
            raise TimeoutError from None
        finally:
            del self._deadlines[future]

    async def run(self) -> None:
        """Cancel overdue futures, forever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            now = time.monotonic()
            for future in [future for future, deadline in self._deadlines.items() if deadline < now]:
                future.cancel()

    def close(self) -> None:
        """End every wait within LAST_SECONDS, including those that start later."""
        self._latest = time.monotonic() + LAST_SECONDS
        self._deadlines = {future: min(deadline, self._latest) for future, deadline in self._deadlines.items()}

    @property
    def is_closed(self) -> bool:
        """Return True after `close`."""
        return self._latest < math.inf


class Body:
    """The body of one request. Release it when the request is answered."""

    def __init__(self, protocol: Any, address: str, length: int | None, budget: Budget, overdue: Overdue) -> None:
        self._protocol = protocol
        self._address = address
        self._length = length
        self._budget = budget
        self._overdue = overdue
        self._taken = 0
        self._began = time.monotonic()
        self._pieces: Any = None

    async def read(self, limit: int) -> bytes:
        """Return the whole body. Raises RequestEntityTooLarge, RequestTimeout, BadRequest, ServiceUnavailable."""
        if self._length == 0:
            return b""
        if self._length is not None and self._length > limit:
            raise RequestEntityTooLarge
        try:
            if self._length is not None and self._length <= SMALL:
                whole: bytes = await self._overdue.wait(self._protocol(), self._deadline(self._length))
            else:
                whole = await self._read_pieces(limit)
        except TimeoutError:
            if self._overdue.is_closed:
                raise ServiceUnavailable("The service is about to stop.", retry_after=RETRY_AFTER_SECONDS) from None
            raise RequestTimeout("The body did not arrive in time.") from None
        except RuntimeError:  # RSGIProtocolError
            raise BadRequest(_CUT_OFF) from None
        if self._length is not None and len(whole) != self._length:
            raise BadRequest(_CUT_OFF)
        return whole

    def _deadline(self, size: int) -> float:
        return self._began + SECONDS + size / BYTES_PER_SECOND

    async def _read_pieces(self, limit: int) -> bytes:
        pieces = bytearray()
        async for piece in self._each_piece():
            if len(pieces) + len(piece) > limit:
                raise RequestEntityTooLarge
            if not self._budget.take(self._address, len(piece)):
                detail = "Other large requests use all memory allowed for them; try again soon."
                raise ServiceUnavailable(detail, retry_after=RETRY_AFTER_SECONDS)
            self._taken += len(piece)
            pieces += piece
        return bytes(pieces)

    async def _each_piece(self) -> AsyncIterator[bytes]:
        """Yield each piece that arrives. Raises BadRequest if the last one is not the body's end."""
        if self._pieces is None:
            self._pieces = aiter(self._protocol)
        received = empty = 0
        while True:
            deadline = self._deadline(received if self._length is None else self._length)
            try:
                piece: bytes = await self._overdue.wait(anext(self._pieces), deadline)
            except StopAsyncIteration:
                break
            received += len(piece)
            empty += not piece
            yield piece
        # granian ends every body with an empty piece; a second one means that reading failed.
        if self._length is None and empty > 1:
            raise BadRequest(_CUT_OFF)

    async def linger(self) -> None:
        """Discard what arrives within LINGER_SECONDS: after a reset, the client might not get the response."""
        self._began = time.monotonic() - SECONDS + LINGER_SECONDS
        self._length = 0
        with contextlib.suppress(TimeoutError, RuntimeError):
            async for _ in self._each_piece():
                if time.monotonic() > self._began + SECONDS:
                    break

    def release(self) -> None:
        """Return the memory to the budget. Safe to call twice."""
        if self._taken:
            self._budget.give_back(self._address, self._taken)
            self._taken = 0
