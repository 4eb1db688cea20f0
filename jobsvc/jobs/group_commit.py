"""Group commit: concurrent calls of several threads are executed as one batch.

The first caller becomes leader and executes everything queued. Callers that arrive while it does so form the
next batch, led by the first of them. No call waits for a batch to fill, so a single caller pays no more.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from jobsvc.errors import StoreUnavailable

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class _Member(Generic[Request, Reply]):
    """One thread's request. Its thread is woken up once: when the reply is known, or to lead the next batch."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.reply: Reply | Exception | None = None
        self.is_leader = False
        self.wakeup = threading.Lock()
        self.wakeup.acquire()


class GroupCommit(Generic[Request, Reply]):
    """Calls `do` with the requests of all waiting threads, in one thread at a time.

    `do` must be all or nothing, and return one reply for each request. If it raises, it is called for
    each request separately, so that a bad request fails alone; but not after StoreUnavailable, since the
    batch may have been committed.
    """

    def __init__(self, do: Callable[[Sequence[Request]], Sequence[Reply]]) -> None:
        self._do = do
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._gathered: list[_Member[Request, Reply]] = []
        self._is_led = False

    def __call__(self, request: Request) -> Reply:
        """Return the reply to this request. Raises what `do` raises for it."""
        own: _Member[Request, Reply] = _Member(request)
        with self._lock:
            self._gathered.append(own)
            own.is_leader = not self._is_led
            self._is_led = True
        if not own.is_leader:
            own.wakeup.acquire()
        if own.is_leader:
            self._lead()
        if own.reply is None:  # the leader's thread was interrupted
            raise StoreUnavailable("It is not known whether this was stored")
        if isinstance(own.reply, Exception):
            raise own.reply
        return own.reply

    def _lead(self) -> None:
        with self._lock:
            batch, self._gathered = self._gathered, []
        try:
            replies = do_each(self._do, [member.request for member in batch])
            for member, reply in zip(batch, replies, strict=True):
                member.reply = reply
        finally:
            with self._lock:
                following = self._gathered[0] if self._gathered else None
                self._is_led = following is not None
            if following:
                following.is_leader = True
                following.wakeup.release()
            for member in batch:
                if not member.is_leader:
                    member.wakeup.release()


def do_each(do: Callable[[Sequence[Request]], Sequence[Reply]], requests: Sequence[Request]) -> list[Reply | Exception]:
    """Call `do` with all requests, or, if it raises, with each separately; returns a reply or an error for each.

    After StoreUnavailable `do` is not called again, since the batch may have been committed.
    """
    try:
        return list(do(requests))
    except StoreUnavailable as error:
        return [type(error)(str(error)) for _ in requests]
    except Exception as error:
        if len(requests) == 1:
            return [error]
        return [reply for request in requests for reply in do_each(do, [request])]
