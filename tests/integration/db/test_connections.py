"""Locks of a process that died or froze during a transaction."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import psycopg2
import pytest

from tests.integration.factories import submit
from tests.support.launcher import ROOT
from tests.support.servers import sql
from tests.support.service import eventually

LOCK = """
import os, signal, sys, time
from sqlalchemy import text
from jobsvc.db.engine import transaction
with transaction() as connection:
    connection.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": sys.argv[1]})
"""

pytestmark = pytest.mark.usefixtures("clean")


@contextmanager
def running(script: str, job_id: UUID, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A process, of a group of its own, that locks the job's row and goes on with `script`."""
    indented = "".join(f"    {line}\n" for line in script.strip().splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK + indented, str(job_id)],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def is_locked(job_id: UUID) -> bool:
    try:
        sql(os.environ["DATABASE_URL"], "SELECT 1 FROM jobs WHERE id = %s FOR UPDATE NOWAIT", str(job_id))
    except psycopg2.errors.LockNotAvailable:
        return True
    return False


def test_killed_process_leaves_no_locks_to_its_children() -> None:
    job_id = submit()
    script = """
if os.fork() == 0:
    time.sleep(60)
print("locked", flush=True)
signal.pause()
"""
    with running(script, job_id, JOBSVC_LEASE_SECONDS="60") as process:
        assert is_locked(job_id)
        process.kill()
        process.wait()
        eventually(lambda: not is_locked(job_id))


def test_child_does_not_end_its_parents_transaction() -> None:
    job_id = submit()
    script = """
if os.fork() == 0:
    sys.exit()
os.wait()
print("locked", flush=True)
connection.execute(text("UPDATE jobs SET tags = '{still}' WHERE id = :id"), {"id": sys.argv[1]})
"""
    with running(script, job_id) as process:
        assert process.wait(10) == 0
    assert sql(os.environ["DATABASE_URL"], "SELECT tags FROM jobs WHERE id = %s", str(job_id)) == [(["still"],)]


def test_frozen_process_keeps_locks_for_a_lease_at_most() -> None:
    job_id = submit()
    script = """
print("locked", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""
    with running(script, job_id, JOBSVC_LEASE_SECONDS="1"):
        eventually(lambda: not is_locked(job_id))
