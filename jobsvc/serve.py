"""`make run`: serves the API with granian, configured by the settings."""

import asyncio
import logging
import os
import resource
import signal
import socket
import threading
import time
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from jobsvc import logs, tracing
from jobsvc.api.server.adapter import Adapter
from jobsvc.app import create_app
from jobsvc.config import settings
from jobsvc.dispatch.server_check import check_servers
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.processes.forks import freeze_objects
from jobsvc.processes.orphans import stop_gently, when_orphaned
from jobsvc.processes.pid_one import leave_pid_one
from jobsvc.processes.refusal import exit_on_error
from jobsvc.servers.listening import listen

THREADS = 32
"""Maximum number of requests processed at once."""

WAITERS = 256
"""Maximum number of clients that may wait at once, each on its own thread."""

STOP_SECONDS = 10

SENDING_SECONDS = 0.5
"""Time for the last responses to be sent before the process exits."""

HEAD_SECONDS = 10
"""Timeout for a request's head, and so for an idle connection, too."""

MAX_CONNECTIONS = 16384
"""Maximum number of connections served at once, about 10 KB each; further ones wait in the kernel."""

RESERVED_FILES = 512
"""Open files reserved for the service itself; the rest of the limit is for connections."""

UNREAD_SECONDS = 20
"""A connection is closed if its client accepts no sent data for this long (TCP_USER_TIMEOUT)."""


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    leave_pid_one()
    bootstrap()
    check_servers()
    files = _raise_file_limit()
    with exit_on_error():
        listener = listen(settings().host_address, settings().PORT, MAX_CONNECTIONS)
    # Connections inherit both options.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * UNREAD_SECONDS))
    print(f"jobsvc serves {settings().address}", flush=True)
    _take_ctrl_c_as_sigterm()
    os.register_at_fork(after_in_child=lambda: when_orphaned(os.getppid(), stop_gently))
    _Server(
        listener,
        target="jobsvc.serve:application",
        factory=True,
        interface=Interfaces.RSGI,
        loop=Loops.asyncio,
        http=HTTPModes.http1,  # an HTTP/2 connection may have many requests at once, without limits for each
        http1_settings=HTTP1Settings(header_read_timeout=int(1000 * HEAD_SECONDS)),
        websockets=False,
        backpressure=min(MAX_CONNECTIONS, max(files - RESERVED_FILES, files // 2)),
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=logs.server_config(),
    ).serve()


class _Server(MPServer):
    """granian on our own socket, which no other process shares, and which has a timeout for unread data."""

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        super().__init__(**options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._sso: socket.socket | None = self._listener
        self._ssp: Any = None
        self._sfd: Any = self._listener.fileno()
        self._shd: Any = SocketHolder(self._sfd, False, MAX_CONNECTIONS)  # type: ignore[call-arg]


class _Application(Adapter):
    """The adapter, with a SIGTERM handler that stops it."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__rsgi_init__(loop)
        self._is_stopping = False
        loop.add_signal_handler(signal.SIGTERM, self._stop)

    def _stop(self) -> None:
        """Release the waiting clients and stop granian, which then waits only for requests in progress."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self.close()
        # SIGINT stops granian, too, but its signal handler blocks at the third call (deadlock). So the signal is
        # unblocked for a moment only. It may be pending already, since a terminal sends it to every process.
        if signal.SIGINT not in signal.sigpending():
            signal.raise_signal(signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.start(self._end())

    async def _end(self) -> None:
        """Exit once all requests are answered; granian would also wait for incomplete heads and unread responses."""
        while self.at_work:
            await asyncio.sleep(0.02)
        await asyncio.sleep(SENDING_SECONDS)
        tracing.flush()
        logging.shutdown()
        os._exit(0)


def application() -> Adapter:
    """Create the application for granian's worker process."""
    app = create_app(WAITERS, has_commands=False)
    adapter = _Application(app, THREADS, WAITERS)
    freeze_objects()
    return adapter


def _raise_file_limit() -> int:
    """Raise the limit of open files to the hard limit; returns the limit in effect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard


def _take_ctrl_c_as_sigterm() -> None:
    """Convert SIGINT to SIGTERM in this process.

    A terminal sends SIGINT to granian's worker, too, which hangs if its parent's SIGTERM follows. So SIGINT is
    blocked, which the worker inherits, and a thread of this process waits for it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def take() -> None:
        signal.sigwait({signal.SIGINT})
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(STOP_SECONDS + 2)
        os._exit(1)  # granian didn't exit; its worker exits when it is orphaned

    threading.Thread(target=take, daemon=True).start()


if __name__ == "__main__":
    main()
