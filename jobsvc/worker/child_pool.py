"""A worker's child processes: a shared one, and one for each attempt that needs its own process."""

import selectors
from collections.abc import Iterator

from jobsvc.worker.child import ChildProcess


class ChildPool:
    """Child processes, forked on demand. Main thread only, except for `kill`."""

    def __init__(self, concurrency: int, slots: int) -> None:
        self._concurrency, self._slots = concurrency, slots
        self._children: list[ChildProcess] = []
        self._selector = selectors.DefaultSelector()

    def __iter__(self) -> Iterator[ChildProcess]:
        return iter(list(self._children))

    def for_many(self) -> ChildProcess:
        """Return the shared child process; fork a new one if that is closing or retired."""
        usable = (child for child in self._children if not child.is_for_one and child.is_usable)
        return next(usable, None) or self._add(ChildProcess.spawn(self._concurrency, self._slots))

    def for_one(self) -> ChildProcess:
        """Fork a child process for a single job."""
        return self._add(ChildProcess.spawn(1, self._slots, is_for_one=True))

    def _add(self, child: ChildProcess) -> ChildProcess:
        self._children.append(child)
        self._selector.register(child, selectors.EVENT_READ)
        return child

    def wait(self, seconds: float, unsent: float) -> None:
        """Wait up to `seconds` for a message from a child; up to `unsent` while data for one is buffered."""
        unsent_to = [child for child in self._children if child.flush()]
        self._selector.select(max(min(seconds, unsent) if unsent_to else seconds, 0))

    def kill(self) -> None:
        """Kill all of them with their handlers. From any thread."""
        for child in self:
            child.kill()

    def dismiss(self, child: ChildProcess) -> None:
        """Kill it and remove it; unread messages are lost."""
        self._selector.unregister(child)
        self._children.remove(child)
        child.close()

    def close(self) -> None:
        """Dismiss all of them."""
        for child in self:
            self.dismiss(child)
