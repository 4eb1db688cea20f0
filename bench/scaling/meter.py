"""What a stretch of work costs: CPU by program, and what Postgres and Redis count."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import psycopg2

from bench import usage
from bench.environment import Environment, Program

# pg_stat_io has an object `wal` since PostgreSQL 18.
COUNTS = """
SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS transactions,
       (SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
        WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())) AS statements,
       (SELECT wal_bytes FROM pg_stat_wal) AS wal_bytes,
       (SELECT wal_fpi FROM pg_stat_wal) AS page_images,
       (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal') AS fsyncs,
       (SELECT sum(fsync_time) FROM pg_stat_io WHERE object = 'wal') AS fsync_ms,
       n_tup_ins AS inserts, n_tup_upd AS updates, n_tup_hot_upd AS hot_updates, n_tup_del AS deletes
FROM pg_stat_user_tables WHERE relname = 'jobs'
"""
WAITS = """
SELECT coalesce(wait_event_type || ' ' || wait_event, 'on the CPU') FROM pg_stat_activity
WHERE state = 'active' AND application_name = 'jobsvc'
"""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobsvc'"


class Meter:
    """Reads the counts of a database and its programs. A context manager: it has a connection of its own."""

    def __init__(self, environment: Environment, programs: Mapping[str, Sequence[Program]]) -> None:
        self._environment = environment
        self._programs = programs
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> "Meter":
        self._connection = psycopg2.connect(self._environment.env["DATABASE_URL"])
        self._connection.autocommit = True
        self.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._connection.close()

    def query(self, statement: str) -> list[dict[str, Any]]:
        """Return the rows of a statement."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []

    def read(self) -> dict[str, float]:
        """Return all counts so far."""
        cpu = {f"cpu {name}": usage.cpu(process.pid) for name, process in self._environment.servers().items()}
        for name, programs in self._programs.items():
            cpu[f"cpu {name}"] = sum(usage.cpu(one.popen.pid) for one in programs)
        [row] = self.query(COUNTS)
        redis = self._environment.redis.info("stats")["total_commands_processed"]
        return {"at": time.perf_counter(), "redis commands": redis, **cpu, **{k: float(v or 0) for k, v in row.items()}}

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Wait so long, or until something is true, and note what the active sessions of the service wait for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            with contextlib.suppress(psycopg2.Error):
                self.waits.update(value for row in self.query(WAITS) for value in row.values())
            time.sleep(0.1)

    def top_waits(self, number: int = 5) -> str:
        """Return the most frequent waits with their shares of the samples."""
        total = max(sum(self.waits.values()), 1)
        return ", ".join(f"{what} {100 * count / total:.0f} %" for what, count in self.waits.most_common(number))


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return what was added between two readings; `at` becomes the seconds between them."""
    return {name: after[name] - before[name] for name in after}


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print(f"\n| {' | '.join(headings)} |\n|---|{'---:|' * (len(headings) - 1)}")
    for row in rows:
        print(f"| {' | '.join(map(_cell, row))} |")
    print(flush=True)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
