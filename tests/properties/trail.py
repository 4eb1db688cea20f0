"""A record of every change of a job, made by triggers in Postgres, and the state after it."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2

from jobsvc.states import ENDED, WAITING

Row = dict[str, Any]
"""A job's row as JSON, without its payload. Times are texts."""

TABLES = (
    "jobs, attempts, attempt_lines, idempotency_keys, schedules, queues, tallies, counter_history, dependencies, "
    "pending_releases, rate_starts, trail.changes"
)

_READ = """
WITH new AS (DELETE FROM trail.changes RETURNING *)
SELECT json_build_object(
    'changes', (SELECT json_agg(new ORDER BY n) FROM new),
    'jobs', (SELECT json_object_agg(id, to_jsonb(jobs) - 'payload') FROM jobs),
    'dependencies', (SELECT json_agg(dependencies) FROM dependencies),
    'releases', (SELECT json_agg(job_id) FROM pending_releases),
    'paused', (SELECT json_agg(name) FROM queues WHERE paused_at IS NOT NULL),
    'orphans', (SELECT count(*) FROM attempts WHERE job_id NOT IN (SELECT id FROM jobs)),
    'counters', (SELECT json_agg(json_build_array(event, type, queue, status, number)) FROM tallies),
    'now', now()
)::text
"""


@dataclass(frozen=True)
class Change:
    """A change of a job's row: inserted (`before` is empty), updated, or deleted (`after` is empty)."""

    n: int
    before: Row
    after: Row
    dependencies: dict[str, str]
    blocked_dependents: int

    @property
    def job(self) -> Row:
        return self.after or self.before

    @property
    def id(self) -> str:
        return str(self.job["id"])

    @property
    def move(self) -> tuple[str | None, str | None]:
        """The statuses before and after; None where there is no row."""
        return self.before.get("status"), self.after.get("status")

    @property
    def is_move(self) -> bool:
        return self.move[0] != self.move[1]


@dataclass(frozen=True)
class State:
    """All that is committed at one moment, and the changes that were committed since the last State was read."""

    changes: list[Change] = field(default_factory=list)
    jobs: dict[str, Row] = field(default_factory=dict)
    dependencies: list[Row] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    orphans: int = 0
    counters: list[list[Any]] = field(default_factory=list)
    now: str = ""

    def has_come(self, moment: str | None) -> bool:
        """Return True if this moment is not later than the time of the state."""
        return moment is not None and seconds(moment) <= seconds(self.now)

    def unfinished(self) -> list[Row]:
        return [job for job in self.jobs.values() if job["status"] not in ENDED]

    def waiting(self) -> list[Row]:
        return [job for job in self.jobs.values() if job["status"] in WAITING]


def seconds(moment: str) -> float:
    """Return a time in seconds since the epoch."""
    return float("inf") if moment == "infinity" else datetime.fromisoformat(moment).timestamp()


class Trail:
    """Reads the record over a connection of its own, which no open transaction delays."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def read(self) -> State:
        """Return the committed state. Each change is returned once."""
        with self._connection.cursor() as cursor:
            cursor.execute(_READ)
            found = json.loads(cursor.fetchone()[0])
        changes = [
            Change(
                one["n"],
                one["before"] or {},
                one["after"] or {},
                one["dependencies"] or {},
                one["blocked_dependents"] or 0,
            )
            for one in found.pop("changes") or []
        ]
        given = {name: value for name, value in found.items() if value is not None}
        return State(changes, **given)

    def execute(self, statement: str, *parameters: Any) -> None:
        """Execute a statement whose changes are not recorded."""
        with self._connection.cursor() as cursor:
            cursor.execute("SET trail.is_off = on")
            cursor.execute(statement, parameters or None)
            cursor.execute("RESET trail.is_off")

    def fetch(self, statement: str, *parameters: Any) -> Any:
        """Return the rows of a query."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall()

    def empty(self) -> None:
        """Empty all tables."""
        self.execute(f"TRUNCATE {TABLES}")


@contextmanager
def recording(database_url: str) -> Iterator[Trail]:
    """Record changes within the block."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(Path(__file__).with_suffix(".sql").read_text())
        try:
            yield Trail(connection)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP SCHEMA trail CASCADE")
