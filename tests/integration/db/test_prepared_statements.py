"""Statements that Postgres plans once for each connection, also when the connection is not the one of before."""

from collections.abc import Iterator

import pytest
from sqlalchemy import ARRAY, Double, Text, bindparam, func, literal_column, select
from sqlalchemy.exc import DataError

from jobsvc.db import engine, prepared_statements
from jobsvc.db.engine import statement, transaction
from tests.integration.factories import submit

STATEMENTS = "SELECT count(*) FROM pg_prepared_statements WHERE starts_with(name, 'jobsvc_')"
percent = (
    select(literal_column("'50% of '", Text) + bindparam("what") + " %(what)s", 10 / bindparam("by", type_=Double))
    .where(func.cardinality(bindparam("many", type_=ARRAY(Text))) == 2)
    .execution_options(is_prepared=True)
)
VALUES = {"what": "it's %", "by": 4.0, "many": ["a", "b"]}


@pytest.fixture(autouse=True)
def one_connection() -> Iterator[None]:
    """Start with no open connection, so that all statements of a test have the same one."""
    engine.disconnect()
    yield
    engine.disconnect()


def prepared() -> int:
    with statement() as connection:
        return int(connection.exec_driver_sql(STATEMENTS).scalar_one())


def run() -> tuple[str, float]:
    with statement() as connection:
        [found] = connection.execute(percent, VALUES).all()
        return tuple(found)


def test_statement_known_to_be_prepared_is_only_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second PREPARE would be an error in Postgres' log each time."""
    run()
    monkeypatch.setattr(prepared_statements, "DuplicatePreparedStatement", ())
    assert [run()[1] for _ in range(3)] == [2.5] * 3


def test_statement_is_prepared_once_for_a_connection() -> None:
    assert [run() for _ in range(3)] == [("50% of it's % %(what)s", 2.5)] * 3
    assert prepared() == 1
    submit()
    submit()
    assert prepared() == 2


def test_statement_that_another_client_of_the_pooler_has_prepared_is_used() -> None:
    run()
    with statement() as connection:
        connection.info.clear()
    assert run()[1] == 2.5
    assert prepared() == 1


def test_statement_that_is_not_prepared_on_this_connection_of_the_pooler_is_prepared() -> None:
    run()
    with statement() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")
    assert run()[1] == 2.5
    assert prepared() == 1


def test_statement_is_executed_unprepared_if_each_try_reaches_another_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run()
    monkeypatch.setattr(prepared_statements, "TRIES", 0)
    with statement() as connection:
        connection.exec_driver_sql("DEALLOCATE ALL")
    assert run()[1] == 2.5
    assert prepared() == 0


def test_error_of_a_prepared_statement_is_raised() -> None:
    for _ in range(2):
        with pytest.raises(DataError, match="division by zero"), statement() as connection:
            connection.execute(percent, {**VALUES, "by": 0.0})
    assert run()[1] == 2.5


def test_statement_in_a_transaction_is_not_prepared() -> None:
    with transaction() as connection:
        assert connection.execute(percent, VALUES).one()[1] == 2.5
    assert prepared() == 0
