"""PID 1 of a container: reaps orphaned processes and forwards signals.

The kernel makes PID 1 the parent of each orphaned process, and keeps an ended one as a zombie until PID 1 waits for it.
A program that waits for all its children would take the exit statuses that `subprocess` and `multiprocessing` wait for.
So as PID 1 the program continues in a child process, and PID 1 does nothing else.
"""

import os
import signal
import sys
from typing import Never

_KERNEL = 0
"""The kernel's signals have a higher `si_code`. For Ctrl-C it sends one to all of a terminal's processes."""

_KEPT = {signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}


def leave_pid_one() -> None:
    """As PID 1, continue in a child process and exit with its status; else do nothing.

    Call it before threads are started.
    """
    if os.getpid() != 1:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, the kernel keeps no exit status
    signals = signal.valid_signals() - _FAULTS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    main = os.fork()
    if main == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    _be_init(main, signals)


def _be_init(main: int, signals: set[signal.Signals]) -> Never:
    while True:
        received = signal.sigwaitinfo(signals)
        if received.si_signo == signal.SIGCHLD:
            _reap(main)
        elif received.si_signo not in _KEPT and received.si_code <= _KERNEL:
            os.kill(main, received.si_signo)


def _reap(main: int) -> None:
    """Reap all ended processes; exit if the main one has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == main:
            code = os.waitstatus_to_exitcode(status)
            sys.stdout.flush()
            os._exit(code if code >= 0 else 128 - code)
