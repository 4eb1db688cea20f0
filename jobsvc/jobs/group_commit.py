"""Group commit: what threads ask for at the same time is done in one go, so that they share its price.

Who comes first does it for all who came by then. Meanwhile others gather, and when it is done the
first of them leads the next group. So nobody waits for company, and a thread that comes alone pays no more.
"""

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from jobsvc.errors import StoreUnavailable

Wish = TypeVar("Wish")
Outcome = TypeVar("Outcome")


class _Member(Generic[Wish, Outcome]):
    """What one thread wants stored. It is woken once: when there is an outcome, or when it is its turn to lead."""

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
        if not self.outcomes:  # whoever led was torn away
            raise StoreUnavailable("It is not known whether this was stored")
        return self.outcomes[0]


class GroupCommit(Generic[Wish, Outcome]):
    """Calls `do` for the wishes of all threads that wait, in one of them at a time.

    `do` has to be all or nothing, and returns an outcome for each wish. Where it raises, it is
    called for each wish on its own, so that nobody suffers from a wish of others; but not where
    Postgres was away, since it may have been done then.
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
        """The outcome of this wish. Raises what `do` raises for it."""
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
    """Call `do` for all of these wishes, or, where it raises, for each of them; returns an outcome or error for each.

    Where Postgres is unavailable, `do` may have been done; so it is not called again.
    """
    try:
        return list(do(wishes))
    except StoreUnavailable as error:
        return [type(error)(str(error)) for _ in wishes]
    except Exception as error:
        if len(wishes) == 1:
            return [error]
        return [outcome for wish in wishes for outcome in do_each(do, [wish])]
