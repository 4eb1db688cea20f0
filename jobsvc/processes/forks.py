"""Guards against processes that a handler forks: they must not act for the process that runs the attempt."""

import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import process as multiprocessing_process
from types import TracebackType
from typing import Any

Handling = Callable[..., Any] | int | None

_program = multiprocessing_process.current_process()  # the main process, at import
_owner = 0  # the process that called `guard`
_handlings: dict[int, tuple[Handling, Handling]] = {}  # by signal: our handler, and the one for a forked process
_forget: Callable[[], None] | None = None
_is_guarded = False
_masks = threading.local()


def guard(handlings: Mapping[int, tuple[Handling, Handling]], forget: Callable[[], None] | None = None) -> None:
    """From now on, let processes forked by this one start like those of any Python program.

    handlings: for each signal, this process' signal handler and the one for a forked process. The latter is
        set only if the former is still installed, since a job handler may have installed its own.
    forget: called in the forked process, to drop resources that only this process may use.
    """
    global _owner, _forget, _is_guarded
    _owner, _forget, _is_guarded = os.getpid(), forget, True
    _handlings.clear()
    _handlings.update(handlings)


def freeze_objects() -> None:
    """Exclude all present objects from garbage collections, after a last one; forked processes share their memory.

    Without this, the first full collection of each process takes 60 to 100 ms (measured), and copies that memory.
    """
    gc.collect()
    gc.freeze()


def be_main_process() -> None:
    """Make `multiprocessing` treat this process as a main process, without parent and children.

    Else a process forked by RQ inherits its worker's, and `active_children()` shows RQ's scheduler to handlers.
    """
    main: Any = multiprocessing_process
    main._children = set()
    main._process_counter = itertools.count(1)
    main._current_process = _program
    main._parent_process = None


class Boundary:
    """A context manager around a handler: a process that the handler forked exits here, at the end of the block."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _owner not in (0, os.getpid()):  # forked, directly or not, from the process that called `guard`
            _exit_fork(error)


def _exit_fork(error: BaseException | None) -> None:
    """Exit as Python would after `error`, but without running the inherited exit functions."""
    status = 1
    try:
        if error is None:
            status = os.EX_OK
        elif isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = (error.code or 0) & 0xFF
        elif isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        else:
            traceback.print_exception(error)
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
        finally:
            os._exit(status)


def _before() -> None:
    # Block signals until the new process has its own signal handlers (race).
    if _is_guarded:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _handlings)


def _in_parent() -> None:
    if _is_guarded:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _in_child() -> None:
    global _is_guarded
    if not _is_guarded:
        return
    _is_guarded = False  # processes forked from this one inherit its current state unchanged
    for number, (ours, default) in _handlings.items():
        if signal.getsignal(number) == ours:
            signal.signal(number, default)
    with contextlib.suppress(OSError):
        signal.set_wakeup_fd(-1)
    if _forget:
        _forget()
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
