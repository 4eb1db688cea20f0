"""Processes that a handler forks: none of them can speak for the process in which the attempt runs."""

import contextlib
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

_program = multiprocessing_process.current_process()  # as it was imported: a program's main process
_owner = 0  # the process of which `guard` was called
_handlings: dict[int, tuple[Handling, Handling]] = {}  # of signals: ours, and what a forked process gets instead
_forget: Callable[[], None] | None = None
_is_guarded = False
_masks = threading.local()


def guard(handlings: Mapping[int, tuple[Handling, Handling]], forget: Callable[[], None] | None = None) -> None:
    """Make sure from now on that a process forked by this one starts as one forked by any Python program.

    handlings: for each signal what this process does, and what a forked one is to do. The latter is set
        only where the former still is, since a handler may have set its own.
    forget: called in the forked process; gives up what only this one may use.
    """
    global _owner, _forget, _is_guarded
    _owner, _forget, _is_guarded = os.getpid(), forget, True
    _handlings.clear()
    _handlings.update(handlings)


def be_main_process() -> None:
    """Let `multiprocessing` take this process for a program's main one, without children and without a parent.

    A process that RQ forked has those of its worker, and `active_children()` would show RQ's scheduler to handlers.
    """
    main: Any = multiprocessing_process
    main._children = set()
    main._process_counter = itertools.count(1)
    main._current_process = _program
    main._parent_process = None


class Boundary:
    """`with` it around a handler: what comes out of it in another process ends that process, quietly."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if is_forked():
            leave(error)


def is_forked() -> bool:
    """Return True in a process that was forked, by whatever means, from the one that called `guard`."""
    return _owner != 0 and os.getpid() != _owner


def leave(error: BaseException | None) -> None:
    """End this process as Python would after `error`, but without running the exit functions that it inherited."""
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
    # A signal for the new process waits until that process handles it as it should.
    if _is_guarded:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _handlings)


def _in_parent() -> None:
    if _is_guarded:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _in_child() -> None:
    global _is_guarded
    if not _is_guarded:
        return
    _is_guarded = False  # what this process forks inherits its own state, whatever that is by then
    for number, (ours, default) in _handlings.items():
        if signal.getsignal(number) == ours:
            signal.signal(number, default)
    with contextlib.suppress(OSError):
        signal.set_wakeup_fd(-1)
    if _forget:
        _forget()
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
