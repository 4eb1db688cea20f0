"""The process in which a worker's handlers run, seen from the worker.

It outlives the jobs that it runs, and what it tells is read also after its death: so a handler that
crashes takes nobody else's result along, and its worker knows which jobs had begun.
"""

import contextlib
import math
import mmap
import os
import signal
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from jobsvc.channel import Channel
from jobsvc.jobs import Started

SLOTS = 512
"""How many jobs a worker may hold at once. Each has a slot, by which it and its horse call it."""

STUCK_LOOKS = 5
"""Looks, not seconds, since on a busy machine the horse and who looks at it stand still together."""

_ours: "weakref.WeakSet[Channel]" = weakref.WeakSet()


def _hang_up() -> None:
    # A horse learns from a closed channel that its worker is gone: no other child may hold that end open.
    for channel in list(_ours):
        channel.close()


os.register_at_fork(after_in_child=_hang_up)


_is_forking = False


def fork() -> int:
    """Fork a horse, which finds out by itself that its worker has gone."""
    global _is_forking
    _is_forking = True
    try:
        return os.fork()
    finally:
        _is_forking = False


def is_forking() -> bool:
    """Whether the fork that is going on makes a horse."""
    return _is_forking


class Horse:
    """A forked process that runs what it is given, on its main thread or on `threads` > 1 of them.

    With `is_for_one` it is given one job only.
    """

    def __init__(self, threads: int, is_for_one: bool = False) -> None:
        self._channel, there = Channel.pair()
        shared = memoryview(mmap.mmap(-1, 2 * 8 * SLOTS)).cast("d")
        self._begun, self._took = shared[:SLOTS], shared[SLOTS:]
        self.is_for_one = is_for_one
        self.kill_at = math.inf  # monotonic seconds; once that is known, it is given no more
        self._latest, self._looks = 0.0, 0
        self._had_begun = False  # before its slots were given anew
        self._is_reaped = False
        self.pid = fork()
        if self.pid == 0:
            from jobsvc.runner import Runner

            self._channel.close()
            Runner(there, self._begun, self._took, threads).run()
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)  # as it does itself, whoever comes first
        there.close()
        _ours.add(self._channel)

    def fileno(self) -> int:
        """For `select`."""
        return self._channel.fileno()

    def give(self, work: Iterable[tuple[int, Started, float]]) -> None:
        """Have it run these: the slot, the job, and when (monotonic seconds) it may begin at the latest."""
        work = list(work)
        self._looks = 0
        self._had_begun = self.has_begun
        for slot, _, _ in work:
            self._begun[slot] = self._took[slot] = 0.0
        self._channel.send(("run", work))

    def begun(self, slot: int) -> float:
        """When (monotonic seconds) the handler of the job in this slot was called; 0 if it was not."""
        return self._begun[slot]

    @property
    def has_begun(self) -> bool:
        """Whether it has called a handler at all, or if it can't even live."""
        return self._had_begun or any(self._begun)

    def look(self, is_busy: bool) -> None:
        """Look whether it goes on; to be called now and then. `is_busy`: something runs in it."""
        latest = max(self._begun)
        self._looks = self._looks + 1 if is_busy and latest == self._latest else 0
        self._latest = latest

    @property
    def is_stuck(self) -> bool:
        """Whether it was busy, and has begun nothing, for STUCK_LOOKS looks."""
        return self._looks >= STUCK_LOOKS

    def stored(self, slots: list[int]) -> None:
        """The ends of these are stored; it may forget them."""
        self._channel.send(("stored", slots))

    def cancel(self, slot: int) -> None:
        """The job was called off."""
        self._channel.send(("cancel", slot))

    def hand_back(self, slot: int) -> None:
        """Raise HandBack in the handler."""
        self._channel.send(("hand_back", slot))

    def close_by(self, moment: float) -> None:
        """It is to end when nothing runs in it any more, and by this moment (monotonic seconds) in any case."""
        self.kill_at = min(self.kill_at, moment)

    def give_up(self, slot: int) -> None:
        """Have it tell what there is of an attempt that does not stop."""
        self._channel.send(("give_up", slot))

    def recall(self) -> None:
        """Have it return what has not begun."""
        self._looks = 0
        self._channel.send(("recall",))

    def flush(self) -> bool:
        """Send on what didn't fit yet; returns whether something is left."""
        return self._channel.flush()

    def messages(self) -> Iterator[list[Any]]:
        """What it has told since, each with its kind first: completed, ended, returned, progress, last_words."""
        while messages := self._channel.receive():
            yield from messages
        # After what it had sent, which may have rung for these.
        for slot, seconds in enumerate(self._took.tolist()):
            if seconds:
                self._took[slot] = 0.0
                yield ["completed", slot, seconds]

    @property
    def is_dead(self) -> bool:
        """Whether it has gone, and all that it told was read."""
        if not self._channel.is_closed and not self._is_reaped:
            # A process that a handler left behind may hold the other end open.
            self._is_reaped = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self._channel.is_closed or self._is_reaped

    def kill(self) -> None:
        """End it, and what its handlers have started with it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and wait until it is gone; what it told can still be heard."""
        self.kill()
        if not self._is_reaped:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self._is_reaped = True

    def close(self) -> None:
        """End it; what it told and was not heard is lost."""
        self._channel.close()
        self.end()
