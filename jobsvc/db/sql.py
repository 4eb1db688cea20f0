"""SQL expressions shared by several statements."""

from hashlib import blake2b
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    ColumnElement,
    Double,
    TableValuedAlias,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

read_in_index_order = text(
    "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true), "
    "set_config('work_mem', '32MB', true), set_config('jit', 'off', true)"
)
"""For the first statement of a transaction with bounded reads (LIMIT in the order of an index).

Else Postgres reads and sorts all rows of a range if it expects that they are not many more than the limit.
"""


def rows(name: str, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> TableValuedAlias:
    """Return a table made from the parameter `rows`, a list of dicts with these columns.

    So the same statement, with one parameter, handles one row or a thousand.
    """
    fields = [column(key, type_) for key, type_ in columns.items()]
    source = func.jsonb_to_recordset(bindparam("rows", type_=JSONB))
    return source.table_valued(*fields, name=name).render_derived(with_types=True)


def seconds(amount: Any) -> ColumnElement[Any]:
    """Return a number of seconds as an interval."""
    # Not make_interval: each of its six other arguments would be a parameter of the statement.
    interval: ColumnElement[Any] = literal_column("interval '1 second'") * amount
    return interval


def seconds_until(moment: Any) -> ColumnElement[Any]:
    """Return the seconds from now until `moment`, negative if it is past."""
    return func.extract("epoch", moment - now())


def seconds_since(moment: Any) -> ColumnElement[Any]:
    """Return the seconds from `moment` until now."""
    return cast(func.extract("epoch", now() - moment), Double)


def lock_number(*what: str) -> int:
    """Hash names to 64 bits for an advisory lock. A collision is harmless: it only makes transactions wait."""
    return int.from_bytes(blake2b("\n".join(what).encode(), digest_size=8).digest(), signed=True)


def now() -> ColumnElement[Any]:
    """Return the transaction's start time by Postgres' clock, the only clock that decisions depend on."""
    return func.now(type_=TIMESTAMP(timezone=True))
