"""`make run`: the API under granian, as the settings say."""

import asyncio
import gc
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
from jobsvc.processes.orphans import stop_gently, when_orphaned
from jobsvc.processes.pid_one import leave_pid_one
from jobsvc.processes.refusal import exit_on_error
from jobsvc.servers.listening import listen

THREADS = 32
"""Requests that are worked on at once."""

WAITERS = 256
"""Clients that may wait at once, each on a thread of its own."""

STOP_SECONDS = 10

SENDING_SECONDS = 0.5
"""The last answers have this long to be sent before the process ends."""

HEAD_SECONDS = 10
"""A request's head has to arrive within this time; so an idle connection is closed after it, too."""

MAX_CONNECTIONS = 16384
"""Connections served at once. Each takes about 10 KB; the others wait in the kernel."""

RESERVED_FILES = 512
"""Files and connections of the service itself, for which the limit of open files leaves room."""

UNREAD_SECONDS = 20
"""A connection whose client takes nothing of what was sent for so long is closed (TCP_USER_TIMEOUT)."""


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    leave_pid_one()
    bootstrap()
    check_servers()
    files = _raise_file_limit()
    with exit_on_error():
        listener = listen(settings().host_address, settings().PORT, MAX_CONNECTIONS)
    # Connections inherit both.
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
        http=HTTPModes.http1,  # an HTTP/2 connection may have many requests under way, without limits of their own
        http1_settings=HTTP1Settings(header_read_timeout=int(1000 * HEAD_SECONDS)),
        websockets=False,
        backpressure=min(MAX_CONNECTIONS, max(files - RESERVED_FILES, files // 2)),
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.error,
        log_dictconfig=logs.of_server(),
    ).serve()


class _Server(MPServer):
    """granian on a socket of ours: one that no other process shares, with a timeout for what nobody reads."""

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        super().__init__(**options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._sso: socket.socket | None = self._listener
        self._ssp: Any = None
        self._sfd: Any = self._listener.fileno()
        self._shd: Any = SocketHolder(self._sfd, False, MAX_CONNECTIONS)  # type: ignore[call-arg]


class _Application(Adapter):
    """The adapter, which SIGTERM stops."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__rsgi_init__(loop)
        self._is_stopping = False
        loop.add_signal_handler(signal.SIGTERM, self._stop)

    def _stop(self) -> None:
        """Let go of the clients that wait, and have granian stop, which then waits only for requests at work."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self.close()
        # granian takes SIGINT for a stop, too, and its handler blocks when it is called for the third time. So that
        # signal is blocked but for one moment. It may be pending, since a terminal sends it to every process.
        if signal.SIGINT not in signal.sigpending():
            signal.raise_signal(signal.SIGINT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.start(self._end())

    async def _end(self) -> None:
        """End the process once every request is answered; granian would wait for half a head and unread answers."""
        while self.at_work:
            await asyncio.sleep(0.02)
        await asyncio.sleep(SENDING_SECONDS)
        tracing.flush()
        logging.shutdown()
        os._exit(0)


def application() -> Adapter:
    """The application as granian's worker process serves it."""
    app = create_app(WAITERS, has_commands=False)
    adapter = _Application(app, THREADS, WAITERS)
    gc.collect()
    gc.freeze()  # all that is there by now stays, so no later collection need look at it
    return adapter


def _raise_file_limit() -> int:
    """Raise the limit of open files to what the system allows; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard


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
