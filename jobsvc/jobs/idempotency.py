"""Requests that may come twice: the first one makes its jobs, the others hear what it was told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import IdempotencyKey
from jobsvc.db.sql import lock_number, now
from jobsvc.errors import KeyReused, KeyUnderWay
from jobsvc.jobs.submit import NewJob, Submitted, store

KEPT = timedelta(hours=24)
"""How long a key is remembered."""


@dataclass(frozen=True)
class RequestKey:
    """An Idempotency-Key, whose it is, and a fingerprint of the request, the same for the same request only."""

    owner: str
    key: str
    fingerprint: str


@dataclass(frozen=True)
class Answer:
    """What the request is told, and the jobs that it made: none if it is `replayed`."""

    reply: dict[str, Any]
    submitted: list[Submitted]
    replayed: bool


@retrying
def submit_once(key: RequestKey, new: Sequence[NewJob], tell: Callable[[list[Submitted]], dict[str, Any]]) -> Answer:
    """Store these jobs and what `tell` makes of them, in one transaction; or return what was told for this key before.

    Raises KeyUnderWay while another request with this key is at it, and KeyReused if it was another request.
    """
    with transaction() as connection:
        number = lock_number("idempotency key", key.owner, key.key)
        if not connection.scalar(select(func.pg_try_advisory_xact_lock(number))):
            raise KeyUnderWay("a request with this key is under way; try again when it has been answered")
        # A statement of its own, so that it sees what the lock's last holder committed.
        if first := _remembered(connection, key):
            if first.fingerprint != key.fingerprint:
                raise KeyReused("this key was used with another request; take a new one")
            return Answer(first.reply, [], replayed=True)
        submitted = store(connection, new)
        reply = tell(submitted)
        _remember(connection, key, reply)
    return Answer(reply, submitted, replayed=False)


def _remembered(connection: Connection, key: RequestKey) -> Any:
    return connection.execute(
        select(IdempotencyKey.fingerprint, IdempotencyKey.reply).where(
            IdempotencyKey.owner == key.owner,
            IdempotencyKey.key == key.key,
            IdempotencyKey.created_at > now() - KEPT,
        )
    ).one_or_none()


def _remember(connection: Connection, key: RequestKey, reply: dict[str, Any]) -> None:
    row = {"fingerprint": key.fingerprint, "reply": reply, "created_at": now()}
    connection.execute(
        insert(IdempotencyKey)
        .values(owner=key.owner, key=key.key, **row)
        .on_conflict_do_update(index_elements=[IdempotencyKey.owner, IdempotencyKey.key], set_=row)
    )


@retrying
def forget_keys(limit: int) -> int:
    """Forget up to `limit` keys that are too old to count; returns how many."""
    old = (
        select(IdempotencyKey.owner, IdempotencyKey.key)
        .where(IdempotencyKey.created_at <= now() - KEPT)
        .order_by(IdempotencyKey.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    with transaction() as connection:
        return connection.execute(
            delete(IdempotencyKey).where(
                tuple_(IdempotencyKey.owner, IdempotencyKey.key).in_(select(old.c.owner, old.c.key))
            )
        ).rowcount
