"""The servers of a run: Postgres with room for 100 workers and with statistics, PgBouncer on request."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.environment import BenchError, Environment, Program, eventually, query
from jobsvc.devservices import Postgres
from jobsvc.devservices.server import free_port

MAX_CONNECTIONS = 500
STATISTICS = (
    "shared_preload_libraries=pg_stat_statements",
    "track_wal_io_timing=on",
    "log_autovacuum_min_duration=0",
)
"""Settings of Postgres that measure. All others are its defaults, unless the run changes them."""

_VACUUM = re.compile(
    r'automatic (?:aggressive )?vacuum of table "bench\.public\.jobs"'
    r".*?CPU: user: ([\d.]+) s, system: ([\d.]+) s, elapsed: ([\d.]+) s",
    re.DOTALL,
)


class ScalingEnvironment(Environment):
    """An environment whose Postgres has more settings, and whose databases may be kept in a folder."""

    def __init__(self, data: Path | None, settings: Sequence[str]) -> None:
        super().__init__(data)
        chosen = (f"max_connections={MAX_CONNECTIONS}", *STATISTICS, *settings)

        class WithSettings(Postgres):
            def command(self, state: dict[str, Any]) -> list[str]:
                return [*super().command(state), *(part for one in chosen for part in ("-c", one))]

        self.postgres = WithSettings

    def keep(self, name: str, fill: Callable[[], object], template: str) -> bool:
        """Use this database if it is in the folder, else make and fill it; returns True if it was filled."""
        self.env["DATABASE_URL"] = self._url("postgres")
        is_new = not self.sql("SELECT 1 FROM pg_database WHERE datname = %(name)s", name=name)
        if is_new:
            self._admin(f"DROP DATABASE IF EXISTS {name}_draft")
            self.make(f"{name}_draft", fill, template)
            self._admin(f"ALTER DATABASE {name}_draft RENAME TO {name}")
        self.use(name)
        return is_new

    def vacuums(self) -> list[tuple[float, float]]:
        """Return the CPU seconds and the duration in seconds of each automatic vacuum of the jobs so far."""
        return cpu_and_duration((self._data / "postgres.log").read_text(errors="replace"))

    def pgbouncer(self, pool_size: int) -> tuple[Program, str] | None:
        """Start PgBouncer in transaction mode before the database in use; returns it and its URL. None: not there."""
        program = shutil.which("pgbouncer")
        if program is None:
            return None
        target, port = urlsplit(self.env["DATABASE_URL"]), free_port(None)
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"bench = host=127.0.0.1 port={target.port} dbname=bench user=jobsvc password={target.password}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\nmax_client_conn = 1000\ndefault_pool_size = {pool_size}\n"
        )
        self.folder.chmod(0o755)
        unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        process, url = self.run(*unprivileged, program, str(config)), f"postgresql://jobsvc@127.0.0.1:{port}/bench"

        def answers() -> bool:
            process.check()
            try:
                return bool(query(url, "SELECT 1"))
            except Exception:
                return False

        eventually(answers, "PgBouncer answers")
        return process, url


def cpu_and_duration(log: str) -> list[tuple[float, float]]:
    """Return the CPU seconds and the duration in seconds of each automatic vacuum of the jobs in Postgres' log."""
    return [(float(user) + float(system), float(took)) for user, system, took in _VACUUM.findall(log)]


def require(condition: object, message: str) -> None:
    """Raise BenchError unless the condition is true."""
    if not condition:
        raise BenchError(message)
