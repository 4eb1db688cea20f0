"""An application in any language that shares the database, and enqueues jobs in SQL."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import psycopg2.extensions

from tests.support.service import Service


@contextlib.contextmanager
def application(service: Service, **how: Any) -> Iterator[psycopg2.extensions.connection]:
    """A connection of an application; what it has not committed is rolled back after the block."""
    url = service.env.get("DATABASE_URL") or os.environ["DATABASE_URL"]
    with contextlib.closing(psycopg2.connect(url, **how)) as connection:
        yield connection


def call(connection: psycopg2.extensions.connection, type: Any, payload: Any, options: Any) -> str:
    """Call the function within the connection's transaction; returns the job's id. None is NULL, else it is JSON."""
    arguments = (type, *(None if one is None else json.dumps(one) for one in (payload, options)))
    with connection.cursor() as cursor:
        cursor.execute("SELECT jobsvc_enqueue(%s, %s, %s)", arguments)
        [[job_id]] = cursor.fetchall()
        return str(job_id)


def enqueue(connection: psycopg2.extensions.connection, **body: Any) -> str:
    """Enqueue a job with the fields of POST /jobs, within the connection's transaction; returns its id."""
    return call(connection, body.pop("type", "TEST_JOB"), body.pop("payload", {}), body)


def committed(service: Service, **body: Any) -> str:
    """Enqueue a job in a transaction of its own; returns its id."""
    with application(service) as connection:
        job_id = enqueue(connection, **body)
        connection.commit()
        return job_id
