"""The first process of a container (PID 1): it collects ended processes whose parents are gone, and passes signals on.

The kernel gives every process whose parent has ended to PID 1, and keeps it as a zombie until PID 1 waits for it.
A program that waits for all of its children would take the exit statuses that `subprocess` and `multiprocessing`
wait for. So as PID 1 the program goes on in a child, and PID 1 has no other duty.
"""

import os
import signal
import sys
from typing import Never

_KERNEL = 0
"""A signal's `si_code` is above this if the kernel sent it, as a terminal does for Ctrl-C, to all of its processes."""

_KEPT = {signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP}
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}


def leave_pid_one() -> None:
    """As PID 1, go on in a child process, and end with its status; elsewhere, do nothing.

    To be called before threads are started.
    """
    if os.getpid() != 1:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, the kernel keeps no exit status
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
    """Collect every process that has ended; end with the main one."""
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
