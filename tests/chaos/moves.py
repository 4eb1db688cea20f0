"""A record of each start and move of a limited job or a dependent, by a trigger in Postgres: its times, its order."""

from dataclasses import dataclass
from typing import Any

import psycopg2

RECORD = """
CREATE TABLE chaos_moves (
    n bigint GENERATED ALWAYS AS IDENTITY, job_id uuid, before text, after text, at timestamptz, job jsonb
);
CREATE FUNCTION chaos_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_moves (job_id, before, after, at, job) VALUES (
        NEW.id, OLD.status, NEW.status,
        CASE NEW.status WHEN 'PROCESSING' THEN NEW.started_at ELSE clock_timestamp() END,
        jsonb_build_object('rateKey', NEW.rate_key, 'rateLimit', NEW.rate_limit, 'ratePer', NEW.rate_per,
            'concurrencyKey', NEW.concurrency_key, 'concurrencyLimit', NEW.concurrency_limit)
    );
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_record AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.status <> NEW.status AND
        (NEW.rate_key IS NOT NULL OR NEW.concurrency_key IS NOT NULL OR NEW.depends_on IS NOT NULL))
    EXECUTE FUNCTION chaos_record();
"""

_READ = """
SELECT job_id::text, before, after, extract(epoch FROM at)::float, job FROM chaos_moves ORDER BY n
"""


@dataclass(frozen=True)
class Move:
    """A move of a job from one status to another. at: seconds since the epoch, by Postgres' clock."""

    job_id: str
    before: str
    after: str
    at: float
    rate_key: str | None = None
    rate_limit: int = 0
    rate_per: float = 0
    concurrency_key: str | None = None
    concurrency_limit: int = 0

    @property
    def is_start(self) -> bool:
        return self.after == "PROCESSING"

    @property
    def is_end(self) -> bool:
        return self.before == "PROCESSING"

    @property
    def is_limited(self) -> bool:
        return bool(self.rate_key or self.concurrency_key)

    @property
    def is_release(self) -> bool:
        return self.before == "BLOCKED" and self.after in ("PENDING", "SCHEDULED")


def read_moves(database_url: str) -> list[Move]:
    """Return the recorded moves. Those of one job are in order, as are the starts under one key."""
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(_READ)
        return [_move(*row) for row in cursor.fetchall()]


def _move(job_id: str, before: str, after: str, at: float, job: dict[str, Any]) -> Move:
    return Move(
        job_id,
        before,
        after,
        at,
        rate_key=job["rateKey"],
        rate_limit=job["rateLimit"] or 0,
        rate_per=job["ratePer"] or 0,
        concurrency_key=job["concurrencyKey"],
        concurrency_limit=job["concurrencyLimit"] or 0,
    )
