"""The row that each peer keeps of a job in Postgres, as the original did, updated as the job proceeds."""

import os
import threading
import time
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

TABLE = """
CREATE TABLE job (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    type text NOT NULL,
    payload jsonb NOT NULL,
    status text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
)
"""
SET_STATUS = "UPDATE job SET status = %s, updated_at = now() WHERE id = %s"

_local = threading.local()


def connection() -> Any:
    """This thread's connection, on which every statement is a transaction."""
    if not hasattr(_local, "connection"):
        _local.connection = psycopg2.connect(os.environ["DATABASE_URL"])
        _local.connection.autocommit = True
    return _local.connection


def set_status(job_id: str, status: str) -> None:
    """Write a job's status."""
    with connection().cursor() as cursor:
        cursor.execute(SET_STATUS, (status, job_id))


def work(job_id: str, duration_ms: int) -> None:
    """A job: its two updates, and the sleep between them."""
    set_status(job_id, "PROCESSING")
    if duration_ms:
        time.sleep(duration_ms / 1000)
    set_status(job_id, "COMPLETED")


def insert(number: int) -> list[str]:
    """Store so many jobs by statements of many rows; returns their ids."""
    with connection().cursor() as cursor:
        rows = execute_values(
            cursor,
            "INSERT INTO job (type, payload, status) VALUES %s RETURNING id::text",
            [("TEST_JOB", "{}", "PENDING")] * number,
            page_size=1000,
            fetch=True,
        )
    return [row[0] for row in rows]
