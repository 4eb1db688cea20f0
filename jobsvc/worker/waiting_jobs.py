"""Jobs that a child process was given and has not started, and its slots for those that run."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Collection
from itertools import count
from queue import Empty, SimpleQueue

from jobsvc.worker.messages import Work

_Queue = deque[tuple[int, Work]]  # each with its number in the order of arrival


class SerialJobs:
    """Waiting jobs of a process that runs one at a time. Thread-safe; 1 us a job less than SharedJobs."""

    def __init__(self) -> None:
        queue: SimpleQueue[Work] = SimpleQueue()
        self._queue = queue
        self.count = queue.qsize
        """Returns how many jobs wait."""
        self.take = queue.get
        """Waits for a job and takes it."""

    def add(self, work: Collection[Work]) -> None:
        """Add jobs."""
        for one in work:
            self._queue.put(one)

    def take_all(self) -> list[Work]:
        """Take all jobs, to return them."""
        taken = []
        with contextlib.suppress(Empty):
            while True:
                taken.append(self._queue.get_nowait())
        return taken


class SharedJobs:
    """Hands out jobs in order, threads' and the loop's by themselves, while a slot is free. Thread-safe.

    slots: jobs that may run at once. threads: how many of them may need a thread.
    is_async: returns True for a job that runs on the loop. wake_loop: called when one may start.
    """

    def __init__(
        self, slots: int, threads: int, is_async: Callable[[Work], bool], wake_loop: Callable[[], None]
    ) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._numbers = count()
        self._for_threads: _Queue = deque()
        self._for_loop: _Queue = deque()
        self._free, self._free_threads, self._threads = slots, threads, threads
        self._is_async, self._wake_loop = is_async, wake_loop

    def count(self) -> int:
        """Return how many jobs wait."""
        return len(self._for_threads) + len(self._for_loop)

    @property
    def wanted_threads(self) -> int:
        """Return how many threads could have a job now."""
        return min(self._threads - self._free_threads + len(self._for_threads), self._threads)

    def add(self, work: Collection[Work]) -> None:
        """Add jobs."""
        with self._changed:
            for one in work:
                (self._for_loop if self._is_async(one) else self._for_threads).append((next(self._numbers), one))
            self._announce(len(work))

    def take(self) -> Work:
        """Wait until a job may start on a thread, and take it with a slot."""
        with self._changed:
            while not self._is_turn(self._for_threads, self._for_loop):
                self._changed.wait()
            self._free -= 1
            self._free_threads -= 1
            return self._for_threads.popleft()[1]

    def take_async(self) -> Work | None:
        """Take a job for the loop with a slot; None if none may start now."""
        with self._changed:
            if not self._is_turn(self._for_loop, self._for_threads if self._free_threads else ()):
                return None
            self._free -= 1
            return self._for_loop.popleft()[1]

    def release(self, thread: bool) -> None:
        """Free the slot of a job that is over; `thread`: it had one."""
        with self._changed:
            self._free += 1
            self._free_threads += thread
            self._announce(1)

    def take_all(self) -> list[Work]:
        """Take all jobs, to return them."""
        with self._changed:
            taken = [work for _, work in (*self._for_threads, *self._for_loop)]
            self._for_threads.clear()
            self._for_loop.clear()
            return taken

    def _announce(self, jobs: int) -> None:
        if self._for_threads:
            self._changed.notify(jobs)
        if self._for_loop:
            self._wake_loop()

    def _is_turn(self, jobs: _Queue, others: "_Queue | tuple[()]") -> bool:
        """Return True if a slot is free for the first of these jobs: the last one is for the job that came first."""
        if not jobs or self._free < 1:
            return False
        return self._free > 1 or not others or jobs[0][0] < others[0][0]
