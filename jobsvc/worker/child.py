"""The process in which a worker's handlers run, seen from the worker.

It outlives the jobs that it runs, and what it tells is read also after its death: so a handler that
crashes takes nobody else's result along, and its worker knows which jobs had begun.
"""

import contextlib
import logging
import math
import mmap
import os
import pickle
import signal
import traceback
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from jobsvc.jobs import StartedAttempt
from jobsvc.processes.orphans import descendants
from jobsvc.worker.ipc import Channel
from jobsvc.worker.messages import Completed, Garbage, Message, decode

logger = logging.getLogger("jobsvc.worker")

SLOTS = 512
"""How many jobs a worker may hold at once. Each has a slot, by which it and its child process call it."""

STUCK_LOOKS = 5
"""Looks, not seconds, since on a busy machine the child process and who looks at it stand still together."""

READS = 64
"""Most reads of what a child process sent before its worker looks after the others."""

_ours: "weakref.WeakSet[Channel]" = weakref.WeakSet()


def _hang_up() -> None:
    # A child process learns from a closed channel that its worker is gone: no other child may hold that end open.
    for channel in list(_ours):
        channel.close()


os.register_at_fork(after_in_child=_hang_up)


_is_forking = False


def fork() -> int:
    """Fork a child process, with SIGINT and SIGTERM blocked. It finds out by itself that its worker has gone."""
    global _is_forking
    _is_forking = True
    pid = -1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        pid = os.fork()
    finally:
        _is_forking = False
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def is_forking() -> bool:
    """Whether the fork that is going on makes a child process."""
    return _is_forking


class ChildProcess:
    """A forked process that runs what it is given, on its main thread or on `threads` > 1 of them.

    With `is_for_one` it is given one job only.
    """

    def __init__(self, threads: int, is_for_one: bool = False) -> None:
        self._channel, there = Channel.pair()
        shared = memoryview(mmap.mmap(-1, 2 * 8 * SLOTS)).cast("d")
        self._begun, self._took = shared[:SLOTS], shared[SLOTS:]
        self.is_for_one = is_for_one
        self.kill_at = math.inf  # monotonic seconds; once that is known, it is given no more
        self.is_retired = False  # it said so itself: it is given no more, and ends when nothing runs in it
        self._latest, self._looks = 0.0, 0
        self._had_begun = False  # before its slots were given anew
        self._is_ended = self._is_reaped = False
        self.pid = fork()
        if self.pid == 0:
            self._be_child(there, threads)
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)  # as it does itself, whoever comes first
        there.close()
        _ours.add(self._channel)

    def _be_child(self, there: Channel, threads: int) -> NoReturn:
        # Whatever happens, this process never returns into the worker's code.
        try:
            from jobsvc.worker.child_main import ChildMain

            self._channel.close()
            ChildMain(there, self._begun, self._took, threads).run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(os.EX_SOFTWARE)

    def fileno(self) -> int:
        """For `select`."""
        return self._channel.fileno()

    def give(self, work: Iterable[tuple[int, StartedAttempt, float]]) -> None:
        """Have it run these: the slot, the job, and when (monotonic seconds) it may begin at the latest."""
        work = list(work)
        self._looks = 0
        self._had_begun = self.has_begun
        for slot, _, _ in work:
            self._begun[slot] = self._took[slot] = 0.0
        self._tell("run", work)

    def begun(self, slot: int) -> float:
        """When (monotonic seconds) the handler of the job in this slot was called; 0 if it was not."""
        return self._begun[slot]

    @property
    def has_begun(self) -> bool:
        """Whether it has called a handler at all, or if it can't even live."""
        return self._had_begun or any(self._begun)

    @property
    def is_usable(self) -> bool:
        """Whether it may be given more."""
        return self.kill_at == math.inf and not self.is_retired

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
        self._tell("stored", slots)

    def cancel(self, slot: int) -> None:
        """The job was called off."""
        self._tell("cancel", slot)

    def hand_back(self, slot: int) -> None:
        """Raise HandBack in the handler."""
        self._tell("hand_back", slot)

    def close_by(self, moment: float) -> None:
        """It is to end when nothing runs in it any more, and by this moment (monotonic seconds) in any case."""
        self.kill_at = min(self.kill_at, moment)

    def abandon(self, slot: int) -> None:
        """Have it tell what there is of an attempt that does not stop."""
        self._tell("abandon", slot)

    def return_unstarted(self) -> None:
        """Have it return what has not begun."""
        self._looks = 0
        self._tell("return_unstarted")

    def _tell(self, *command: Any) -> None:
        # Pickled: nobody but this worker can write to the child, which trusts it.
        self._channel.send(pickle.dumps(command, pickle.HIGHEST_PROTOCOL))

    def flush(self) -> bool:
        """Send on what didn't fit yet; returns whether something is left."""
        return self._channel.flush()

    def messages(self) -> Iterator[Message]:
        """What it has told since, in order. What is no message is logged and dropped."""
        for _ in range(READS):
            if not (frames := self._channel.receive()):
                break
            for frame in frames:
                try:
                    yield decode(frame)
                except Garbage as garbage:
                    logger.warning("child process %d: message dropped: %s", self.pid, garbage)
        if self._channel.is_broken:
            logger.error("child process %d: its channel is broken, the process ends", self.pid)
        # After what it had sent, which may have rung for these.
        for slot, seconds in enumerate(self._took.tolist()):
            if seconds:
                self._took[slot] = 0.0
                if 0 < seconds < math.inf:
                    yield Completed(slot, seconds)

    @property
    def is_dead(self) -> bool:
        """Whether it has gone, and all that it told was read."""
        if not self._channel.is_closed and not self._is_ended:
            # A process that a handler left behind may hold the other end open. Its id stays taken until `end`.
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            self._is_ended = ended is not None
        return self._channel.is_closed or self._is_ended

    def kill(self) -> None:
        """End it, and what its handlers have started with it: its group, and their children that have left that."""
        if self._is_reaped:
            return
        others = descendants(self.pid)
        for kill, pid in ((os.kill, self.pid), (os.killpg, self.pid), *((os.kill, other) for other in others)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and wait until it is gone; what it told can still be heard."""
        self.kill()
        if not self._is_reaped:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self._is_reaped = self._is_ended = True

    def close(self) -> None:
        """End it; what it told and was not heard is lost."""
        self._channel.close()
        self.end()
