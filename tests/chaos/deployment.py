"""The deployment under test: both servers, an API, and two worker pools; each can be killed and restarted."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from jobsvc.devservices import Postgres, Valkey
from tests.chaos.handlers import JOURNAL
from tests.chaos.moves import RECORD
from tests.support.servers import sql, upgrade
from tests.support.service import POOL, Process, free_port

LEASE, SWEEP, SHUTDOWN = 3.0, 0.5, 1.0
"""The service's settings, in seconds: short, so that a run needn't wait long for a lease to lapse."""

POOLS = 2


class Deployment:
    """The whole service, on servers of its own, in a folder of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobsvc-chaos-"))
        self.journal = self.folder / "journal"
        self.journal.touch()
        self.postgres, self.valkey = Postgres(self.folder), Valkey(self.folder)
        port = free_port(None)
        self.url = f"http://127.0.0.1:{port}"
        self.env = {
            "DATABASE_URL": self.postgres.start()[0],
            "REDIS_URL": self.valkey.start()[0],
            "PORT": str(port),
            "JOBSVC_HANDLERS": "tests.chaos.handlers",
            "JOBSVC_WORKERS": "2",
            "JOBSVC_LEASE_SECONDS": str(LEASE),
            "JOBSVC_SWEEP_SECONDS": str(SWEEP),
            "JOBSVC_SHUTDOWN_SECONDS": str(SHUTDOWN),
            JOURNAL: str(self.journal),
        }
        upgrade(self.env)
        sql(self.env["DATABASE_URL"], RECORD)
        self.leaving: list[Process] = []
        self.start_api()
        self.pools = [self._pool() for _ in range(POOLS)]

    def _run(self, *arguments: str) -> Process:
        return Process(sys.executable, *arguments, env=self.env, folder=self.folder)

    def _pool(self) -> Process:
        return self._run(*POOL[1:])

    def start_api(self) -> None:
        """Start the API; returns at once."""
        self.api = self._run("-m", "jobsvc.serve")

    def replace(self, pool: Process) -> None:
        """Start another pool in the place of this one, which has died or is on its way out."""
        self.leaving.append(pool)
        self.pools[self.pools.index(pool)] = self._pool()

    def heal(self) -> None:
        """Start all servers and programs that do not run, as an operator would."""
        self.postgres.start()
        self.valkey.start()
        if self.api.popen.poll() is not None:
            self.start_api()
        for pool in self.pools:
            if pool.popen.poll() is not None:
                self.replace(pool)

    def accepts(self) -> bool:
        """Return True if the API and Postgres are available."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def stop(self) -> None:
        """End everything that was started here."""
        for process in (self.api, *self.pools, *self.leaving):
            process.kill()
        self.valkey.stop()
        self.postgres.stop()


def kill(pids: Iterable[int]) -> None:
    """Kill these processes as a crash would: they get no chance to say anything."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def workers(pool: Process) -> list[psutil.Process]:
    """The RQ workers of a pool."""
    return [child for child in _children(pool.popen.pid) if not _is_relay(child)]


def relays(pool: Process) -> list[psutil.Process]:
    """The relay's process of a pool, if it runs."""
    return [child for child in _children(pool.popen.pid) if _is_relay(child)]


def attempts(pool: Process) -> list[psutil.Process]:
    """The processes of a pool's running attempts: children of its workers that lead a process group."""
    children = [child for worker in workers(pool) for child in _children(worker.pid)]
    return [child for child in children if _leads_a_group(child.pid)]


def _children(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    return []


def _leads_a_group(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getpgid(pid) == pid
    return False


def _is_relay(process: psutil.Process) -> bool:
    """Of a pool's children only the relay ignores SIGINT."""
    with suppress(OSError):
        [ignored] = [
            line.split()[1]
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("SigIgn:")
        ]
        return bool(int(ignored, 16) >> (signal.SIGINT - 1) & 1)
    return False
