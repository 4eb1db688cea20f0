"""A child process that runs handlers, as seen by its worker.

It runs many jobs, and its messages can be read after its death. So a handler that crashes it does not lose the results
of other jobs, and the worker knows which jobs had started.
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
from collections.abc import Iterator
from typing import NoReturn

from jobsvc.processes.orphans import descendants
from jobsvc.worker.ipc import Channel
from jobsvc.worker.messages import Command, Completed, Garbage, Message, ReturnUnstarted, Run, Work, decode

logger = logging.getLogger("jobsvc.worker")

MIN_SLOTS = 512
"""Maximum jobs in flight per worker if it runs few at once. Parent and child refer to a job by its slot number."""

STUCK_CHECKS = 5
"""Checks without a new start before a busy child counts as stuck; not seconds: a loaded machine stalls both."""

READS = 64
"""Most reads from one child before the worker serves the others."""

_ours: "weakref.WeakSet[Channel]" = weakref.WeakSet()


def _hang_up() -> None:
    # Fork: a child detects its worker's death by the closed channel, so no other child may keep that end open.
    for channel in list(_ours):
        channel.close()


os.register_at_fork(after_in_child=_hang_up)


class ChildProcess:
    """A forked process that runs jobs one at a time, or several at once.

    With `is_for_one` it runs a single job. `spawn` makes one.
    """

    def __init__(
        self, pid: int, channel: Channel, called_at: "memoryview[float]", took: "memoryview[float]", is_for_one: bool
    ) -> None:
        self.pid = pid
        self.is_for_one = is_for_one
        self.kill_at = math.inf  # monotonic seconds; once set, it gets no more jobs
        self.is_retired = False  # by its own message: gets no more jobs, and ends when idle
        self._channel, self._called_at, self._took = channel, called_at, took
        self._latest, self._idle_checks = 0.0, 0
        self._had_called = False  # `has_called` before its slots were reused
        self._is_ended = self._is_reaped = False

    @classmethod
    def spawn(cls, concurrency: int, slots: int, is_for_one: bool = False) -> "ChildProcess":
        """Fork a child process that runs `concurrency` jobs at once. It detects this process' death itself.

        slots: how many numbers of slots there are.
        """
        here, there = Channel.pair()
        shared = memoryview(mmap.mmap(-1, 2 * 8 * slots)).cast("d")
        called_at, took = shared[:slots], shared[slots:]
        # Race: signals wait until the child process has its own signal handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            if (pid := os.fork()) == 0:
                here.close()
                _run_child(there, called_at, took, concurrency)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # race: both processes do this, whichever is first
        there.close()
        _ours.add(here)
        return cls(pid, here, called_at, took, is_for_one)

    def fileno(self) -> int:
        """Return the descriptor of the wake-up socket, for `select`."""
        return self._channel.fileno()

    def give(self, work: list[Work]) -> None:
        """Send jobs to run."""
        self._idle_checks = 0
        self._had_called = self.has_called
        for slot, *_ in work:
            self._called_at[slot] = self._took[slot] = 0.0
        self.send(Run(work))

    def called_at(self, slot: int) -> float:
        """Return when (monotonic seconds) the handler of the job in this slot was called; 0 before."""
        return self._called_at[slot]

    @property
    def has_called(self) -> bool:
        """Return True once it has called a handler; a dead process without one died during start-up."""
        return self._had_called or any(self._called_at)

    @property
    def is_usable(self) -> bool:
        """Return True if it may get more jobs."""
        return self.kill_at == math.inf and not self.is_retired

    def check_progress(self, is_busy: bool) -> None:
        """Check for progress; to be called at regular intervals. `is_busy`: a handler runs in it."""
        latest = max(self._called_at)
        self._idle_checks = self._idle_checks + 1 if is_busy and latest == self._latest else 0
        self._latest = latest

    @property
    def is_stuck(self) -> bool:
        """Return True if it was busy, and started no job, for STUCK_CHECKS checks."""
        return self._idle_checks >= STUCK_CHECKS

    def close_by(self, moment: float) -> None:
        """Give it no more jobs; it ends when idle, at `moment` (monotonic seconds) at the latest."""
        self.kill_at = min(self.kill_at, moment)

    def return_unstarted(self) -> None:
        """Request the return of jobs that have not started."""
        self._idle_checks = 0
        self.send(ReturnUnstarted())

    def send(self, command: Command) -> None:
        """Send a command; what the channel can't take now is sent by `flush`."""
        # Pickle is safe here: only this worker can write to the child.
        self._channel.send(pickle.dumps(command, pickle.HIGHEST_PROTOCOL))

    def flush(self) -> bool:
        """Send buffered data; returns True if some is left."""
        return self._channel.flush()

    def messages(self) -> Iterator[Message]:
        """Yield the messages received since the last call, in order. Invalid ones are logged and dropped."""
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
        # Last, since the wake-up that was read above may have been for these.
        for slot, seconds in enumerate(self._took.tolist()):
            if seconds:
                self._took[slot] = 0.0
                if 0 < seconds < math.inf:
                    yield Completed(slot, seconds)

    @property
    def is_dead(self) -> bool:
        """Return True if it has ended or its channel is closed."""
        if not self._channel.is_closed and not self._is_ended:
            # A process started by a handler may keep the other end open. WNOWAIT reserves the pid until `end`.
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            self._is_ended = ended is not None
        return self._channel.is_closed or self._is_ended

    def kill(self) -> None:
        """Kill it and all that its handlers have started: its group, and descendants outside of the group."""
        if self._is_reaped:
            return
        pids = [self.pid, *descendants(self.pid)]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and wait for its exit; its messages can still be read."""
        self.kill()
        if not self._is_reaped:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self._is_reaped = self._is_ended = True

    def close(self) -> None:
        """Kill it and close the channel; unread messages are lost."""
        self._channel.close()
        self.end()


def _run_child(
    channel: Channel, called_at: "memoryview[float]", took: "memoryview[float]", concurrency: int
) -> NoReturn:
    # This process must never return into the worker's code.
    try:
        from jobsvc.worker.child_main import ChildMain

        ChildMain(channel, called_at, took, concurrency).run()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(os.EX_SOFTWARE)
