"""Idempotent requests: the first one stores its jobs, repeats get the same reply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.idempotency_models import IdempotencyKey
from jobsvc.db.sql import lock_number, now
from jobsvc.errors import KeyInProgress, KeyReused
from jobsvc.jobs.conflicts import Submitted, accepted
from jobsvc.jobs.submit import NewJob, store

KEPT = timedelta(hours=24)
"""Time for which a key is kept."""


@dataclass(frozen=True)
class RequestKey:
    """An Idempotency-Key, its owner, and the fingerprint of its request, by which another request is recognised."""

    owner: str
    key: str
    fingerprint: str


@dataclass(frozen=True)
class Answer:
    """The reply to a request, and the jobs that it stored: none if the reply is `replayed`."""

    reply: dict[str, Any]
    submitted: list[Submitted]
    replayed: bool


@retrying
def submit_once(
    key: RequestKey, new: Sequence[NewJob], make_reply: Callable[[list[Submitted]], dict[str, Any]]
) -> Answer:
    """Store jobs and the reply made of them in one transaction, or return the key's stored reply.

    Raises UniqueKeyConflict as `submit` does, KeyInProgress while another request with this key is in progress, and
    KeyReused if the key was used with a different request.
    """
    with transaction() as connection:
        number = lock_number("idempotency key", key.owner, key.key)
        if not connection.scalar(select(func.pg_try_advisory_xact_lock(number))):
            raise KeyInProgress("a request with this key is under way; try again when it has been answered")
        # A separate statement, to see what the lock's previous holder committed.
        if first := _stored_reply(connection, key):
            if first.fingerprint != key.fingerprint:
                raise KeyReused("this key was used with another request; take a new one")
            return Answer(first.reply, [], replayed=True)
        submitted = accepted(store(connection, new))
        reply = make_reply(submitted)
        _store_reply(connection, key, reply)
    return Answer(reply, submitted, replayed=False)


def _stored_reply(connection: Connection, key: RequestKey) -> Any:
    return connection.execute(
        select(IdempotencyKey.fingerprint, IdempotencyKey.reply).where(
            IdempotencyKey.owner == key.owner,
            IdempotencyKey.key == key.key,
            IdempotencyKey.created_at > now() - KEPT,
        )
    ).one_or_none()


def _store_reply(connection: Connection, key: RequestKey, reply: dict[str, Any]) -> None:
    row = {"fingerprint": key.fingerprint, "reply": reply, "created_at": now()}
    connection.execute(
        insert(IdempotencyKey)
        .values(owner=key.owner, key=key.key, **row)
        .on_conflict_do_update(index_elements=[IdempotencyKey.owner, IdempotencyKey.key], set_=row)
    )


@retrying
def delete_old_keys(limit: int) -> int:
    """Delete up to `limit` keys older than KEPT; returns how many."""
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
