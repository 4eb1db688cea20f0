"""`make run`: the API under granian, as the settings say."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable

from flask import Flask
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from jobsvc import logs
from jobsvc.api.gate import Gate
from jobsvc.app import create_app
from jobsvc.config import settings
from jobsvc.listening import check_port
from jobsvc.orphans import stop_gently, when_orphaned
from jobsvc.startup import exit_on_error

THREADS = 32
"""Requests that are worked on at once."""

WAITERS = 256
"""Clients that may wait at once, each on a thread of its own."""

STOP_SECONDS = 10


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from jobsvc import rqsettings  # noqa: F401  # loads the handlers, before anything is started

    host, port = settings().host_address, settings().PORT
    with exit_on_error():
        check_port(host, port)
    print(f"jobsvc serves {settings().address}", flush=True)
    _take_ctrl_c_as_sigterm()
    os.register_at_fork(after_in_child=lambda: when_orphaned(os.getppid(), stop_gently))
    Granian(
        "jobsvc.serve:application",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS + WAITERS,
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=logs.of_server(),
    ).serve()


def application() -> Flask:
    """The application as granian's worker process serves it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for every thread that is started from now on
    app = create_app(WAITERS, has_commands=False)
    app.wsgi_app = Gate(app.wsgi_app, THREADS)  # type: ignore[method-assign]
    gc.collect()
    gc.freeze()  # all that is there by now stays, so no later collection need look at it
    threading.Thread(target=_pass_sigterm_on, args=(app.extensions["hub"].close,), daemon=True).start()
    return app


def _pass_sigterm_on(first: Callable[[], None]) -> None:
    """Do this first, when SIGTERM comes; granian would wait for every response to end."""
    signal.sigwait({signal.SIGTERM})
    first()
    granians = signal.getsignal(signal.SIGTERM)
    if callable(granians):
        granians(signal.SIGTERM, None)


def _take_ctrl_c_as_sigterm() -> None:
    """A terminal sends SIGINT to granian's worker too, and that one hangs when its parent's SIGTERM comes on top.

    So SIGINT is blocked, which the worker inherits, and one thread here takes it up.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def take() -> None:
        signal.sigwait({signal.SIGINT})
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(STOP_SECONDS + 2)
        os._exit(1)  # granian didn't end; its worker does when it finds itself alone

    threading.Thread(target=take, daemon=True).start()


if __name__ == "__main__":
    main()
