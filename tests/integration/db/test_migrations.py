"""The migrations: they lead to the models, and back."""

import os
import subprocess
import sys

import psycopg2

from tests.integration.factories import sql
from tests.support.launcher import ROOT
from tests.support.servers import flask_db
from tests.support.service import Process, eventually


def test_models_and_migrations_agree() -> None:
    assert "No new upgrade operations detected" in flask_db("check")


def test_downgrade_and_upgrade_restore_the_schema() -> None:
    flask_db("downgrade", "base")
    assert sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("alembic_version",)]
    flask_db("upgrade")
    assert "No new upgrade operations detected" in flask_db("check")


def test_totals_survive_a_downgrade_of_the_history() -> None:
    insert = "INSERT INTO tallies (event, type, queue, number, minute) VALUES ('accepted', 'T', 'q', 5, {})"
    for minute in ("now()", "null"):
        sql(insert.format(minute))
    flask_db("downgrade", "0007")
    assert sql("SELECT sum(number) FROM tallies") == [(10,)]
    assert sql("SELECT to_regclass('counter_history')") == [(None,)]
    flask_db("upgrade")
    assert sql("SELECT sum(number) FROM tallies WHERE minute IS NULL") == [(10,)]


def test_offline_sql_is_generated() -> None:
    assert "CREATE TABLE jobs" in flask_db("upgrade", "--sql")


def test_concurrent_migrations_do_not_collide() -> None:
    flask_db("downgrade", "base")
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors


def test_requests_do_not_wait_for_a_migration_that_waits_for_a_lock() -> None:
    """A dump reads the tables for minutes. Requests behind a waiting migration would wait as long."""
    flask_db("downgrade", "0009")
    reader = psycopg2.connect(os.environ["DATABASE_URL"])
    reader.cursor().execute("SELECT count(*) FROM jobs")
    migration = Process(sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade")
    try:
        eventually(lambda: sql("SELECT 1 FROM pg_locks WHERE relation = 'jobs'::regclass AND NOT granted"), 30)
        sql("UPDATE jobs SET id = id")  # the tests' lock_timeout ends it if the migration waits on
        assert migration.popen.poll() is None, migration.output
        eventually(lambda: "tables: another transaction uses them, next try in 5 s" in migration.output)
        reader.rollback()
        assert migration.wait() == 0
        assert "tables: upgraded to revision " in migration.output
    finally:
        migration.kill()
        reader.close()
        flask_db("upgrade")
