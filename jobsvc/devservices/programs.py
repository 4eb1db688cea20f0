"""The API and the worker of `jobsvc up`, and their restart after a change of the handlers."""

import os
import time
from collections.abc import Callable

from jobsvc.devservices import ServiceError
from jobsvc.devservices.children import Child, print_line
from jobsvc.devservices.watcher import Watcher

API_SECONDS = 15
"""Longest time for the API to finish its requests; then it is killed."""

LAST_SECONDS = 2
"""Time for a child process to exit after its second SIGTERM; then it is killed."""


class Programs:
    """The running programs, with those that end after a restart."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._children: list[Child] = []
        self._is_restarted = False

    def start(self, name: str) -> Child:
        """Start `api` or `worker`."""
        arguments = ("-m", "jobsvc.devservices.program", str(os.getpid()), str(self._watcher.pid), name)
        child = Child.start(name, *arguments)
        self._children.append(child)
        self._watcher.add_program(child.process.pid)
        return child

    def all_run(self) -> bool:
        """Return True if no program has exited."""
        return all(child.is_running() for child in self._children)

    def check(self) -> None:
        """Clean up after programs that have exited. Raises ServiceError if one did so by itself.

        A program that exits at its start after a restart raises nothing: the next restart starts it again.
        """
        for child in [one for one in self._children if not one.is_running()]:
            why = child.why_it_ended()
            child.kill_session()
            self._children.remove(child)
            if child.is_stopping:
                continue
            if child.is_ready or not self._is_restarted:
                raise ServiceError(f"the {child.name} ended by itself: {why}")
            print_line(f"the {child.name} did not start, and starts again when a file changes: {why}")

    def restart(self, is_cancelled: Callable[[], bool]) -> None:
        """Start a new worker while the old one finishes or returns its jobs; replace the API, which has the port."""
        self._is_restarted = True
        old = [child for child in self._children if not child.is_stopping]
        for child in old:
            child.stop()
        self.start("worker")
        apis = [child for child in old if child.name == "api"]
        deadline = time.monotonic() + API_SECONDS
        while any(child.is_running() for child in apis):
            if is_cancelled():
                return
            if time.monotonic() > deadline:
                for child in apis:
                    child.kill_session()
            time.sleep(0.05)
        self.start("api")

    def signal(self, again: bool) -> None:
        """Send SIGTERM to the programs; to one that has got a SIGTERM before only if `again`."""
        for child in self._children:
            if again or not child.is_stopping:
                child.stop()

    def stop(self, seconds: float) -> None:
        """Stop all programs, and kill what is left of them after this time."""
        for again, longest in ((False, seconds), (True, LAST_SECONDS)):
            self.signal(again)
            deadline = time.monotonic() + longest
            while any(child.is_running() for child in self._children) and time.monotonic() < deadline:
                time.sleep(0.05)
        for child in self._children:
            child.kill_session()
