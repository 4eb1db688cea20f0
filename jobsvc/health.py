"""`jobsvc health`: whether the API or the worker of a container works, for HEALTHCHECK and for exec probes.

A failure is one that a restart may mend. So a server that is unavailable is none: the API and the workers wait for it.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Literal

from jobsvc.config import settings
from jobsvc.errors import JobsvcError
from jobsvc.processes.refusal import exit_on_error

Program = Literal["api", "worker"]

REPLY_SECONDS = 5
"""Longest time until the API has answered."""


class Unhealthy(JobsvcError):
    """The program does not work; the message says what was found."""


def check(program: Program | None) -> None:
    """Print what was found, and exit with status 1 if the program does not work.

    program: which one runs here; by default the one that PID 1 was started as.
    """
    checks: dict[Program, Callable[[], str]] = {"api": _check_api, "worker": _check_worker}
    with exit_on_error():
        print(checks[program or _program_of_pid_one()]())


def _program_of_pid_one() -> Program:
    return "worker" if b"worker" in Path("/proc/1/cmdline").read_bytes().split(b"\0") else "api"


def _check_api() -> str:
    address = settings().host_address
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104  # where the API listens
    # Without the proxies of the environment, which urllib.request would use.
    with contextlib.closing(HTTPConnection(address, settings().PORT, timeout=REPLY_SECONDS)) as connection:
        try:
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
        except (OSError, HTTPException) as error:
            raise Unhealthy(f"health: the API does not answer at {settings().address}: {error}") from None
    if status != 200:
        raise Unhealthy(f"health: the API answered {status} at {settings().address}/healthz")
    return f"the API answers at {settings().address}"


def _check_worker() -> str:
    from redis import RedisError

    from jobsvc.dispatch import rq_workers

    try:
        workers = rq_workers.known()
    except RedisError as error:
        return f"unknown, since Redis is unavailable: {error}"
    here = [one for one in workers if one.host == socket.gethostname() and one.pid and _runs(one.pid)]
    working = [one for one in here if not one.is_lost]
    found = f"{len(working)} of {settings().JOBSVC_WORKERS} worker processes of this host sent a heartbeat"
    if len(working) < settings().JOBSVC_WORKERS:
        raise Unhealthy(f"health: {found}")
    return found


def _runs(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
