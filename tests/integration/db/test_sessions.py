"""The sessions with Postgres: what is asked of them, what cuts them, and how many there are.

The class: a default of the server, or a pooler or timeout in between, that jobsvc did not ask about. Its members: the
isolation level, a SET that outlives its transaction, the client's encoding, a connection that is cut while it is idle
(an idle timeout, an administrator, a firewall that says nothing), serialization failures and deadlocks, a full pool.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text

from jobsvc import jobs
from jobsvc.db import engine, pgoutage, pgsession
from jobsvc.db.engine import check_writable, retrying, statement, transaction
from jobsvc.errors import StoreBusy, StoreConflict
from tests.integration.factories import new, submit
from tests.support.servers import sql
from tests.support.service import eventually

URL = os.environ["DATABASE_URL"]
BACKENDS = """FROM pg_stat_activity
WHERE application_name = 'jobsvc' AND datname = current_database() AND pid <> pg_backend_pid()"""


def show(connection: object, name: str) -> str:
    return str(connection.execute(text(f"SHOW {name}")).scalar())  # type: ignore[attr-defined]


def set_default(assignment: str) -> Iterator[None]:
    server, _, name = URL.rpartition("/")
    parameter = assignment.split("=")[0]
    sql(f"{server}/postgres", f"ALTER DATABASE {name} SET {assignment}")
    engine.disconnect()
    yield
    sql(f"{server}/postgres", f"ALTER DATABASE {name} RESET {parameter}")
    engine.disconnect()


@pytest.fixture
def serializable() -> Iterator[None]:
    yield from set_default("default_transaction_isolation = 'serializable'")


@pytest.fixture
def impatient() -> Iterator[None]:
    yield from set_default("idle_session_timeout = '300ms'")


@pytest.fixture
def read_only() -> Iterator[None]:
    yield from set_default("default_transaction_read_only = on")


def open_connections(number: int) -> None:
    """Have this many idle ones in the pool."""
    barrier = threading.Barrier(number)

    def use(_: int) -> None:
        with transaction() as connection:
            connection.execute(text("SELECT 1"))
            barrier.wait(10)

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(use, range(number)))


def no_sessions() -> bool:
    return sql(URL, f"SELECT count(*) {BACKENDS}") == [(0,)]


def test_transactions_use_read_committed(serializable: None) -> None:
    with transaction() as connection:
        assert show(connection, "transaction_isolation") == "read committed"
    with statement() as connection:
        assert show(connection, "transaction_isolation") == "serializable"


def test_no_setting_outlives_its_transaction() -> None:
    with transaction() as connection:
        assert show(connection, "idle_in_transaction_session_timeout") == "15s"
        [(session,)] = connection.execute(text("SELECT pg_backend_pid()"))
    with statement() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar() == session
        changed = "SELECT name FROM pg_settings WHERE source = 'session'"
        assert connection.execute(text(changed)).all() == []


def test_failed_transaction_is_rolled_back_and_its_connection_clean() -> None:
    def fail() -> None:
        with transaction() as connection:
            connection.execute(text("INSERT INTO queues (name) VALUES ('x')"))
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fail()
    assert sql(URL, "SELECT count(*) FROM queues") == [(0,)]
    assert sql(URL, f"SELECT count(*) {BACKENDS} AND state <> 'idle'") == [(0,)]


def test_cut_idle_connections_cause_no_error(caplog: pytest.LogCaptureFixture) -> None:
    for use in (transaction, statement):
        open_connections(4)
        sql(URL, f"SELECT pg_terminate_backend(pid) {BACKENDS}")
        eventually(no_sessions)
        for _ in range(6):
            with use() as connection:
                assert connection.execute(text("SELECT 1")).scalar() == 1
    assert caplog.records == []


def test_idle_timeout_of_the_server_causes_no_error(impatient: None, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        submit()
        jobs.claim_due(1)
        eventually(no_sessions)
    assert caplog.records == []


def test_long_idle_connection_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def session() -> int:
        with statement() as connection:
            return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    assert session() == session()
    monkeypatch.setattr(pgsession, "IDLE_SECONDS", 0.0)
    assert session() != session()


def test_concurrent_unique_keys_work_under_serializable(serializable: None) -> None:
    with ThreadPoolExecutor(9) as pool:
        for key in range(5):
            ids = set(pool.map(lambda _, key=key: jobs.submit([new(unique_key=str(key))])[0].job_id, range(18)))
            assert len(ids) == 1


def test_concurrent_jobs_work_under_serializable(serializable: None) -> None:
    with ThreadPoolExecutor(9) as pool:
        ids: list[UUID] = list(pool.map(lambda _: submit(), range(90)))
        list(pool.map(lambda id_: jobs.start([id_], "w", 15), ids))
    assert sql(URL, "SELECT count(*) FROM jobs WHERE status = 'PROCESSING'") == [(90,)]


def test_deadlock_is_retried_and_not_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    first, second = submit(), submit()
    barrier = threading.Barrier(2)
    tries: list[UUID] = []

    @retrying
    def lock(one: UUID, other: UUID) -> None:
        tries.append(one)
        with transaction() as connection:
            lock_row = text("UPDATE jobs SET tags = tags || '{x}' WHERE id = :id")
            connection.execute(lock_row, {"id": one})
            if len(tries) <= 2:
                barrier.wait(10)
            connection.execute(lock_row, {"id": other})

    with ThreadPoolExecutor(2) as pool:
        for done in (pool.submit(lock, first, second), pool.submit(lock, second, first)):
            done.result()
    assert len(tries) == 3
    assert sql(URL, "SELECT count(*) FROM jobs WHERE tags = '{x,x}'") == [(2,)]
    assert caplog.records == []


def test_lasting_conflict_is_busy_and_not_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    raise_it = text("DO $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$")
    tries = []

    @retrying
    def conflict() -> None:
        tries.append(1)
        with transaction() as connection:
            connection.execute(raise_it)

    with pytest.raises(StoreConflict):
        conflict()
    with pytest.raises(StoreConflict), statement() as connection:
        connection.execute(raise_it)
    assert len(tries) == pgsession.MAX_TRIES
    assert caplog.records == []


def test_full_pool_is_busy_and_not_an_outage(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(engine.engine().pool, "_timeout", 0.1)
    monkeypatch.setattr(pgoutage._state, "next_full_pool_line", 0.0)
    connections = [transaction() for _ in range(10)]
    for one in connections:
        one.__enter__()
    try:
        for use in (transaction, statement, transaction):
            with pytest.raises(StoreBusy), use():
                pass
    finally:
        for one in connections:
            one.__exit__(None, None, None)
    assert [("JOBSVC_DB_CONNECTIONS" in record.message) for record in caplog.records] == [True]
    assert sql(URL, f"SELECT count(*) {BACKENDS}") == [(10,)]


def test_write_refusal_is_logged_once_until_a_write_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "jobsvc.db")
    for _ in set_default("default_transaction_read_only = on"):
        for _ in range(3):
            with pytest.raises(Exception, match="can't be reached"):
                submit()
            with pytest.raises(Exception, match="can't be reached"):
                check_writable()
            jobs.seconds_to_next()  # reading works, and ends no outage
    submit()
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "Postgres: unavailable",
        "Postgres: available again",
    ]
    assert "25006: cannot execute" in caplog.records[0].message


def test_write_check_stores_nothing() -> None:
    submit()
    state = "SELECT count(*), sum(xmin::text::bigint), pg_relation_size('jobs') FROM jobs"
    before = sql(URL, state)
    check_writable()
    assert sql(URL, state) == before
    assert sql(URL, "SELECT temp_bytes >= 0 FROM pg_stat_database WHERE datname = current_database()") == [(True,)]
