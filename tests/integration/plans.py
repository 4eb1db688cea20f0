"""What Postgres reads for the statements that a function executes."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from jobsvc.db.engine import engine


def blocks_read(call: Callable[[], Any]) -> int:
    """Return the number of blocks (8 KiB) that Postgres reads for the SELECTs of this call."""
    executed: list[tuple[str, Any]] = []

    def record(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, is_many: bool) -> None:
        executed.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", record)
    try:
        call()
    finally:
        event.remove(engine(), "before_cursor_execute", record)
    blocks = 0
    with engine().connect() as connection:
        for statement, parameters in executed:
            [[[top]]] = connection.exec_driver_sql("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, parameters)
            blocks += top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"]
    assert executed
    return blocks
