"""Group commit: concurrent calls of several threads are executed as one batch.

The first caller becomes leader and executes everything queued. Callers that arrive meanwhile form the
next batch, led by the first of them. No call waits for a batch to fill, so a single caller pays no more.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from jobsvc.errors import StoreUnavailable

Wish = TypeVar("Wish")
Outcome = TypeVar("Outcome")


class _Member(Generic[Wish, Outcome]):
    """One thread's request. The thread is woken up once: when its outcome is known, or to lead the next batch."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None
        self.shall_lead = False
        self._wakeup = threading.Lock()
        self._wakeup.acquire()

    def wake(self) -> None:
        self._wakeup.release()

    def wait(self) -> None:
        self._wakeup.acquire()

    def outcome(self) -> Outcome:
        if self.error is not None:
            raise self.error
        if not self.outcomes:  # the leader's thread was interrupted
            raise StoreUnavailable("It is not known whether this was stored")
        return self.outcomes[0]


class GroupCommit(Generic[Wish, Outcome]):
    """Calls `do` with the requests of all waiting threads, in one thread at a time.

    `do` must be all or nothing, and return one outcome for each request. If it raises, it is called for
    each request separately, so that a bad request fails alone; but not after StoreUnavailable, since the
    batch may have been committed.
    """

    def __init__(self, do: Callable[[Sequence[Wish]], Sequence[Outcome]]) -> None:
        self._do = do
        self._start_afresh()
        os.register_at_fork(after_in_child=self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._gathered: list[_Member[Wish, Outcome]] = []
        self._is_led = False

    def __call__(self, wish: Wish) -> Outcome:
        """Return the outcome of this request. Raises what `do` raises for it."""
        me: _Member[Wish, Outcome] = _Member(wish)
        with self._lock:
            self._gathered.append(me)
            me.shall_lead = not self._is_led
            self._is_led = True
        if not me.shall_lead:
            me.wait()
        if me.shall_lead:
            self._lead()
        return me.outcome()

    def _lead(self) -> None:
        with self._lock:
            group, self._gathered = self._gathered, []
        try:
            self._do_for(group)
        finally:
            with self._lock:
                following = self._gathered[0] if self._gathered else None
                self._is_led = following is not None
            if following:
                following.shall_lead = True
                following.wake()
            for member in group:
                if not member.shall_lead:
                    member.wake()

    def _do_for(self, group: Sequence[_Member[Wish, Outcome]]) -> None:
        outcomes = do_each(self._do, [member.wish for member in group])
        for member, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, Exception):
                member.error = outcome
            else:
                member.outcomes.append(outcome)


def do_each(do: Callable[[Sequence[Wish]], Sequence[Outcome]], wishes: Sequence[Wish]) -> list[Outcome | Exception]:
    """Call `do` with all requests, or, if it raises, with each separately; returns an outcome or error for each.

    After StoreUnavailable `do` is not called again, since the batch may have been committed.
    """
    try:
        return list(do(wishes))
    except StoreUnavailable as error:
        return [type(error)(str(error)) for _ in wishes]
    except Exception as error:
        if len(wishes) == 1:
            return [error]
        return [outcome for wish in wishes for outcome in do_each(do, [wish])]
