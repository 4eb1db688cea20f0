"""The Python files of the handlers, whose change reloads the programs of `jobsvc up`.

Polled, since a poll sees changes on every file system (inotify sees none on shares of a virtual machine or a
container's host) and needs no package.
"""

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

POLL_SECONDS = 0.5
"""Time between two polls of the files. A change counts once two polls find the same."""

Snapshot = dict[Path, tuple[int, int]]
"""Time of the last change (ns) and size of each file."""


class HandlerFiles:
    """The files of these modules: the .py files of a module's package, or beside a module that is in none."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._reported = self._last = self._poll()
        self._next_poll = time.monotonic() + POLL_SECONDS

    def changed(self) -> list[Path]:
        """Return the files that changed, appeared or disappeared, each change once; polls at most twice a second."""
        if time.monotonic() < self._next_poll:
            return []
        before, self._last = self._last, self._poll()
        self._next_poll = time.monotonic() + POLL_SECONDS
        if self._last in (self._reported, {}) or self._last != before:
            return []
        changed = sorted(path for path, _ in self._reported.items() ^ self._last.items())
        self._reported = self._last
        return list(dict.fromkeys(changed))

    def _poll(self) -> Snapshot:
        found: Snapshot = {}
        for module in self._modules:
            for path in _files(module):
                with contextlib.suppress(OSError):  # it was deleted just now
                    status = path.stat()
                    found[path] = (status.st_mtime_ns, status.st_size)
        return found


def delete_bytecode(files: Sequence[Path]) -> None:
    """Delete the bytecode of these files; Python would use it for a file of the same size and the same second."""
    for path in files:
        Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def _files(module: str) -> Iterator[Path]:
    top, *below = module.split(".")
    for folder in map(Path, dict.fromkeys([os.getcwd(), *sys.path])):
        if (folder / top).is_dir():
            parents = [(folder / top).joinpath(*below[:depth]) for depth in range(len(below))]
            yield from _package_files(folder / top, parents)
            return
        if (folder / f"{top}.py").is_file():
            yield from folder.glob("*.py")
            return


def _package_files(root: Path, parents: Sequence[Path]) -> Iterator[Path]:
    """Yield the .py files of the folder and of packages in it; `parents` are read though they have no __init__.py."""
    for folder, below, names in os.walk(root):
        yield from (Path(folder, name) for name in names if name.endswith(".py"))
        inner = {name: Path(folder, name) for name in below}
        below[:] = [name for name, path in inner.items() if path in parents or (path / "__init__.py").is_file()]
