"""Writes the edges between jobs and those that depend on them."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Text, Uuid, bindparam, delete, text, update

from jobsvc.db.dependency_models import Dependency
from jobsvc.db.sql import rows

Edge = tuple[UUID, UUID]
"""The id of a dependency, and that of its dependent."""

_insert = text(
    """
    INSERT INTO dependencies (dependency_id, dependent_id, is_open)
    SELECT * FROM unnest(CAST(:dependencies AS uuid[]), CAST(:dependents AS uuid[]), CAST(:open AS boolean[]))
    """
).bindparams(bindparam("dependencies", type_=ARRAY(Text)), bindparam("dependents", type_=ARRAY(Text)))


def insert_edges(connection: Connection, edges: Sequence[tuple[UUID, UUID, bool]]) -> None:
    """Insert new edges, each with True if it is open."""
    dependencies, dependents, are_open = map(list, zip(*edges, strict=True))
    columns = {"dependencies": list(map(str, dependencies)), "dependents": list(map(str, dependents))}
    connection.execute(_insert, {**columns, "open": are_open})


_edges = rows("edges", dependency=Uuid, dependent=Uuid)
_are_these = (Dependency.dependency_id == _edges.c.dependency, Dependency.dependent_id == _edges.c.dependent)


def set_open(connection: Connection, edges: Sequence[Edge], is_open: bool) -> None:
    """Open or close these edges."""
    if edges:
        connection.execute(update(Dependency).where(*_are_these).values(is_open=is_open), _records(edges))


def delete_edges(connection: Connection, edges: Sequence[Edge]) -> None:
    """Delete these edges."""
    if edges:
        connection.execute(delete(Dependency).where(*_are_these), _records(edges))


def _records(edges: Sequence[Edge]) -> dict[str, list[dict[str, str]]]:
    return {"rows": [{"dependency": str(one), "dependent": str(other)} for one, other in edges]}
