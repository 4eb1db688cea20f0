"""A worker's child processes: one for all that it runs, and one for each attempt that wants a process to itself."""

import selectors
from collections.abc import Iterator

from jobsvc.worker.child import ChildProcess


class ChildPool:
    """They are forked when they are needed. All of this is the main thread's, but for `kill`."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._horses: list[ChildProcess] = []
        self._selector = selectors.DefaultSelector()

    def __iter__(self) -> Iterator[ChildProcess]:
        return iter(list(self._horses))

    def __contains__(self, child: ChildProcess) -> bool:
        return child in self._horses

    def for_many(self) -> ChildProcess:
        """The one that runs whatever comes; another one after it was told to close."""
        usable = (child for child in self._horses if not child.is_for_one and child.is_usable)
        return next(usable, None) or self._add(ChildProcess(self._threads))

    def for_one(self) -> ChildProcess:
        """A new one."""
        return self._add(ChildProcess(1, is_for_one=True))

    def _add(self, child: ChildProcess) -> ChildProcess:
        self._horses.append(child)
        self._selector.register(child, selectors.EVENT_READ)
        return child

    def wait(self, seconds: float, unsent: float) -> None:
        """Wait until one of them rings, for so long at most; where messages to them are unsent, `unsent`."""
        unsent_to = [child for child in self._horses if child.flush()]
        self._selector.select(max(min(seconds, unsent) if unsent_to else seconds, 0))

    def kill(self) -> None:
        """End all of them, and their handlers with them. From any thread."""
        for child in self:
            child.kill()

    def dismiss(self, child: ChildProcess) -> None:
        """End it. What it told and was not heard is lost."""
        self._selector.unregister(child)
        self._horses.remove(child)
        child.close()

    def close(self) -> None:
        """Dismiss all of them."""
        for child in self:
            self.dismiss(child)
