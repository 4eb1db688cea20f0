"""`make run`: the API under granian, as the settings say."""

import os
import signal
import socket
import sys
import threading
import time

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from jobsvc import logs
from jobsvc.config import settings
from jobsvc.errors import JobsvcError
from jobsvc.orphans import stop_gently, when_orphaned

THREADS = 32
STOP_SECONDS = 10


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        host, port = settings().HOST, settings().PORT
        from jobsvc import rqsettings  # noqa: F401  # loads the handlers, before anything is started
    except JobsvcError as error:
        sys.exit(f"jobsvc: {error}")
    if _is_taken(host, port):
        sys.exit(f"jobsvc: PORT: {port} is taken on {host}")
    print(f"jobsvc serves {settings().address}", flush=True)
    _take_ctrl_c_as_sigterm()
    os.register_at_fork(after_in_child=lambda: when_orphaned(os.getppid(), stop_gently))
    Granian(
        "wsgi:app",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS,
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=logs.of_server(),
    ).serve()


def _is_taken(host: str, port: int) -> bool:
    # granian would share the port with whoever has it, or try for ever.
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return False
    except OSError:
        return True


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
