"""Prepared statements: Postgres plans them once for each connection, which takes longer than to insert ten jobs."""

from functools import lru_cache
from hashlib import blake2b
from typing import Any

from psycopg2.errors import DuplicatePreparedStatement, InvalidSqlStatementName

IS_PREPARED = "is_prepared"
"""Execution option of SQLAlchemy's statements: True for one that is executed often, as a transaction of its own.

Postgres must be able to infer the type of each parameter.
"""

TRIES = 3
"""Behind a pooler each try may reach another of its connections; after so many, the statement is planned anew."""


def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
    """Execute a statement in autocommit mode, prepared if it has the option. context: SQLAlchemy's, or None."""
    if context is not None and context.execution_options.get(IS_PREPARED):
        known: set[str] = context.root_connection.info.setdefault(IS_PREPARED, set())
        prepare, run = _split(statement, tuple(parameters))
        for _ in range(TRIES):
            try:
                cursor.execute(run if run in known else prepare + run, parameters)
                known.add(run)
                return
            except InvalidSqlStatementName:  # nothing was executed
                known.discard(run)
            except DuplicatePreparedStatement:  # nothing was executed: prepared by another client of the pooler
                known.add(run)
    cursor.execute(statement, parameters)


@lru_cache(maxsize=100)
def _split(statement: str, names: tuple[str, ...]) -> tuple[str, str]:
    """Return the commands to prepare a statement with these parameters and to execute it, for psycopg2."""
    # Named by its text: another version of this program may use the same connection of a pooler.
    name = f"jobsvc_{blake2b(statement.encode(), digest_size=12).hexdigest()}"
    numbered = statement % {parameter: f"${number}" for number, parameter in enumerate(names, 1)}
    values = ", ".join(f"%({parameter})s" for parameter in names)
    return f"PREPARE {name} AS {numbered.replace('%', '%%')}; ", f"EXECUTE {name} ({values})"
