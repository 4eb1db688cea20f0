"""Cost of processes: CPU seconds and memory."""

import contextlib
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Memory:
    """Of a program and all that it started, in MB of a million bytes."""

    processes: int
    pss: float
    """All processes together, what they share counted once."""
    largest: float
    """The resident set of the largest one, what it shares counted in full."""


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu(pid: int) -> float:
    """The CPU seconds of a process and all below it, those included that have ended and were waited for."""
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory(pid: int) -> Memory:
    """The memory of a process and all below it."""
    pss, resident = [], []
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            pss.append(full.pss / 1e6)
            resident.append(full.rss / 1e6)
    return Memory(len(pss), sum(pss), max(resident, default=0))
