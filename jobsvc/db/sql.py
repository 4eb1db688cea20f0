"""A few words of SQL that the statements share."""

from hashlib import blake2b
from typing import Any

from sqlalchemy import TIMESTAMP, ColumnElement, Double, TableValuedAlias, bindparam, cast, column, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine


def rows(name: str, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> TableValuedAlias:
    """A table made of the parameter `rows`, a list of dicts with these columns.

    One statement with one parameter serves one row and a thousand alike.
    """
    fields = [column(key, type_) for key, type_ in columns.items()]
    source = func.jsonb_to_recordset(bindparam("rows", type_=JSONB))
    return source.table_valued(*fields, name=name).render_derived(with_types=True)


def seconds(amount: Any) -> ColumnElement[Any]:
    """A number of seconds as an interval."""
    # make_interval's arguments are years, months, weeks, days, hours, minutes, seconds.
    return func.make_interval(0, 0, 0, 0, 0, 0, amount)


def seconds_until(moment: Any) -> ColumnElement[Any]:
    """The seconds from now until `moment`, below 0 if it is past."""
    return func.extract("epoch", moment - now())


def seconds_since(moment: Any) -> ColumnElement[Any]:
    """The seconds from `moment` until now."""
    return cast(func.extract("epoch", now() - moment), Double)


def lock_number(*what: str) -> int:
    """What is locked, as 64 bits, for Postgres' advisory locks. Two that share a number only wait for each other."""
    return int.from_bytes(blake2b("\n".join(what).encode(), digest_size=8).digest(), signed=True)


def now() -> ColumnElement[Any]:
    """The transaction's time, by Postgres' clock: the only one that decides anything."""
    return func.now(type_=TIMESTAMP(timezone=True))
