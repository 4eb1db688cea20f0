"""The starts under each rate limit, which decide whether another job may start.

The starts of a key have consecutive numbers. They are written under the key's lock, see `admission.lock`.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Text, Uuid, bindparam, text

from jobsvc.db.engine import transaction
from jobsvc.handlers.rate_limit import MAX_PER, MAX_RATE_LIMIT

_record = text(
    """
    INSERT INTO rate_starts (key, number, started_at)
    SELECT rate_key, coalesce((
        SELECT number FROM rate_starts WHERE key = rate_key ORDER BY number DESC LIMIT 1
    ), 0) + row_number() OVER (PARTITION BY rate_key), started_at
    FROM jobs WHERE id = ANY(:ids) AND rate_key IS NOT NULL
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)))

# A start later than now was recorded before the clock was set back.
_correct = text(
    """
    UPDATE rate_starts SET started_at = statement_timestamp()
    WHERE key = ANY(:keys) AND started_at > statement_timestamp()
    """
).bindparams(bindparam("keys", type_=ARRAY(Text)))


def record_starts(connection: Connection, job_ids: Collection[UUID]) -> None:
    """Record that these jobs have started, at their `started_at`, under the locks of their rate keys."""
    connection.execute(_record, {"ids": list(job_ids)})


def correct_starts(connection: Connection, keys: Collection[str]) -> None:
    """Move starts in the future to now, under the locks of these rate keys.

    Otherwise a key would start nothing until Postgres' clock, which was set back, is there again.
    """
    if keys:
        connection.execute(_correct, {"keys": sorted(keys)})


# Loose index scan: one step for each key. The newest start of a key is the last to be deleted.
_prune = text(
    f"""
    WITH RECURSIVE step (key, steps) AS (
        SELECT (SELECT min(key) FROM rate_starts WHERE key > :after), 1
        UNION ALL
        SELECT (SELECT min(key) FROM rate_starts WHERE key > step.key), steps + 1
        FROM step WHERE key IS NOT NULL AND steps < :most
    ), unneeded AS (
        SELECT step.key, greatest(
            (SELECT max(number) FROM rate_starts WHERE key = step.key) - {MAX_RATE_LIMIT},
            (
                SELECT number FROM rate_starts
                WHERE key = step.key AND started_at < now() - interval '{MAX_PER} s'
                ORDER BY started_at DESC, number DESC LIMIT 1
            )
        ) AS last
        FROM step WHERE key IS NOT NULL
    ), old AS (
        SELECT key, number FROM unneeded, LATERAL (
            SELECT number FROM rate_starts WHERE key = unneeded.key AND number <= last
            ORDER BY number LIMIT :most FOR UPDATE SKIP LOCKED
        ) AS found LIMIT :most
    ), deleted AS (
        DELETE FROM rate_starts USING old WHERE rate_starts.key = old.key AND rate_starts.number = old.number
        RETURNING rate_starts.key
    )
    SELECT (SELECT count(*) FROM deleted) AS deleted, max(key) AS reached, count(key) AS keys FROM step
    """  # noqa: S608  # put together from constants
)


def prune_starts(after: str, most: int) -> tuple[int, str]:
    """Delete starts that no rate limit can need: older than MAX_PER, or not among the newest MAX_RATE_LIMIT of a key.

    Goes through up to `most` keys after the key `after`, and deletes up to `most` starts.
    Returns how many were deleted, and the key after which to go on; "" if all keys were seen.
    """
    with transaction() as connection:
        deleted, reached, keys = connection.execute(_prune, {"after": after, "most": most}).one()
    if deleted == most:
        return deleted, after
    return deleted, reached if keys == most else ""
