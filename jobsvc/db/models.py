"""The tables in Postgres."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobsvc.states import WAITING, Outcome, Status


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


_IS_WAITING = f"status IN ({', '.join(repr(status.value) for status in WAITING)})"
IS_DISPATCHED = f"{_IS_WAITING} AND dispatched_at >= due_at"
IS_RUNNING = "status = 'PROCESSING'"
IS_UNFINISHED = f"({IS_RUNNING} OR {_IS_WAITING})"
IS_TO_DISPATCH = f"{_IS_WAITING} AND (dispatched_at IS NULL OR dispatched_at < due_at)"
AWAITS_HANDLER_AT = "9999-12-31 00:00:00+00"
"""`dispatched_at` of a job that a worker refused because it has no handler for its type; later than any real time."""

IS_IN_RQ = f"{IS_DISPATCHED} AND dispatched_at < '{AWAITS_HANDLER_AT}'"
IS_WITHHELD = f"{_IS_WAITING} AND dispatched_at = 'infinity'"
AWAITS_HANDLER = f"{_IS_WAITING} AND dispatched_at = '{AWAITS_HANDLER_AT}'"
TAKES_PLACE = f"({IS_RUNNING} OR ({IS_IN_RQ}))"
"""Jobs that count against the limit of their concurrency key when another job is to be dispatched."""

Moment = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    """Base class of all tables. Constraints are named, so that an error can be identified by the constraint's name."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s",
            "ck": "%(table_name)s_%(constraint_name)s",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {str: Text, datetime: Moment, dict[str, Any]: JSONB}


class Job(Base):
    """A job: the client's request, and its current state. Only the package `jobs` writes rows."""

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    queue: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    tags: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="null for none, which keeps them out of the index"
    )
    unique_key: Mapped[str | None] = mapped_column(comment="at most one unfinished job of its type has it")
    concurrency_key: Mapped[str | None] = mapped_column(comment="at most concurrency_limit jobs with it run at once")
    concurrency_limit: Mapped[int | None] = mapped_column(Integer)
    traceparent: Mapped[str | None] = mapped_column(comment="W3C Trace Context of the request that made it")

    run_at: Mapped[datetime | None] = mapped_column(comment="not before, as the client asked")
    expires_at: Mapped[datetime | None] = mapped_column(comment="to be started by then, or failed")
    expiry_met: Mapped[datetime | None] = mapped_column(
        comment="expires_at of a job that has started in time: shown, but without effect"
    )
    timeout: Mapped[float] = mapped_column(Double, comment="seconds, for one attempt")
    retry_intervals: Mapped[list[float]] = mapped_column(ARRAY(Double), comment="seconds, one for each retry")
    max_attempts: Mapped[int] = mapped_column(Integer)

    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(comment="while it waits: when it may start")
    dispatched_at: Mapped[datetime | None] = mapped_column(
        comment="when it was last pushed to RQ; before due_at: not for this turn; infinity: held back; "
        "year 9999: no handler"
    )
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"), comment="the number of its last start")
    worker: Mapped[str | None] = mapped_column(comment="RQ's name of the worker that started it last")
    lease_expires_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None] = mapped_column(comment="when its last attempt began")
    finished_at: Mapped[datetime | None] = mapped_column(comment="when it ended")
    cancel_requested_at: Mapped[datetime | None] = mapped_column(comment="when its running attempt was told to stop")
    version: Mapped[int] = mapped_column(
        BigInteger, server_default=text("0"), comment="grows with every change that is shown"
    )

    progress: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="type, message and attempt of the last one that failed"
    )
    webhook_url: Mapped[str | None] = mapped_column(comment="told at each end of the job")
    webhook_job_id: Mapped[UUID | None] = mapped_column(comment="the job that tells of its last end")

    __table_args__ = (
        CheckConstraint(_one_of("status", Status), name="status"),
        # Indexes for the sweep, each on the few rows that a query may return.
        Index("jobs_to_dispatch", "due_at", postgresql_where=text(IS_TO_DISPATCH)),
        Index("jobs_in_rq", "queue", "dispatched_at", postgresql_where=text(IS_DISPATCHED)),
        Index("jobs_to_expire", "expires_at", postgresql_where=text(f"{_IS_WAITING} AND expires_at IS NOT NULL")),
        # On the id, not on the lease, so that renewing a lease updates no index.
        Index("jobs_running", "id", postgresql_where=text(IS_RUNNING)),
        Index(
            "jobs_unique_key",
            "type",
            "unique_key",
            unique=True,
            postgresql_where=text(f"unique_key IS NOT NULL AND {IS_UNFINISHED}"),
        ),
        # Jobs that count against a concurrency limit, and withheld jobs: few rows are read however many wait.
        Index(
            "jobs_concurrency_key",
            "concurrency_key",
            postgresql_where=text(f"concurrency_key IS NOT NULL AND {TAKES_PLACE}"),
        ),
        Index(
            "jobs_held_by_key",
            "concurrency_key",
            "due_at",
            postgresql_where=text(f"concurrency_key IS NOT NULL AND {IS_WITHHELD}"),
        ),
        Index(
            "jobs_held_by_pause",
            "queue",
            "due_at",
            postgresql_where=text(f"concurrency_key IS NULL AND {IS_WITHHELD}"),
        ),
        # Jobs that a worker refused because it has no handler for their type.
        Index("jobs_awaiting_handler", "queue", "type", "due_at", postgresql_where=text(AWAITS_HANDLER)),
        Index("jobs_ended", "queue", "status", postgresql_where=text("finished_at IS NOT NULL")),
        # Indexes for the list. A successful job without tags writes to none of them (decision 0007).
        Index("jobs_failed", "id", postgresql_where=text("status = 'FAILED'")),
        Index("jobs_cancelled", "id", postgresql_where=text("status = 'CANCELLED'")),
        Index(
            "jobs_type_queue",
            "type",
            "queue",
            postgresql_using="brin",
            postgresql_ops={"type": "text_bloom_ops", "queue": "text_bloom_ops"},
            postgresql_with={"autosummarize": "on"},
        ),
        Index("jobs_tags", "tags", postgresql_using="gin", postgresql_where=text("tags IS NOT NULL")),
        {"postgresql_with": {"fillfactor": "80"}},
    )


class Attempt(Base):
    """A finished attempt that logged or did not succeed. For a success without logs the job's row has all data."""

    __tablename__ = "attempts"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(Integer, comment="what the handler saw as ctx.attempt")
    worker: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime] = mapped_column(server_default=func.now())
    outcome: Mapped[str]
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    traceback: Mapped[str | None]
    logs: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSONB(none_as_null=True), comment="[{time, level, message}], those that came with its end; null for none"
    )
    last_line: Mapped[int | None] = mapped_column(
        BigInteger, comment="the number of the last of them, counted from 1; null: they are all there are"
    )

    __table_args__ = (CheckConstraint(_one_of("outcome", Outcome), name="outcome"),)


class AttemptLines(Base):
    """Log lines stored while an attempt ran. Rows may overlap; `last_line` and the number of lines show it."""

    __tablename__ = "attempt_lines"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_line: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, comment="the number of the last of these, counted from 1"
    )
    number: Mapped[int] = mapped_column(Integer, comment="what the handler saw as ctx.attempt")
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, comment="[{time, level, message}], consecutive")


class Queue(Base):
    """A paused queue. A queue that is not paused has no row."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime | None] = mapped_column(comment="no job of it is started since then")


class Deployment(Base):
    """This database's identity, which distinguishes it from others whose jobs are in the same Redis."""

    __tablename__ = "deployment"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False, comment="1: there is one row")
    owner: Mapped[UUID] = mapped_column(comment="stands in Redis, with the namespace that is its own")

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class Schedule(Base):
    """A job to be submitted at each tick of a cron expression."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    cron: Mapped[str]
    timezone: Mapped[str]
    enabled: Mapped[bool]
    job: Mapped[dict[str, Any]] = mapped_column(comment="the body of POST /jobs, as it was given")
    new_job: Mapped[dict[str, Any]] = mapped_column(comment="what that body asked for, all defaults filled in")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_run_at: Mapped[datetime | None] = mapped_column(comment="the next tick; none while it isn't enabled")
    last_run_at: Mapped[datetime | None] = mapped_column(comment="by a tick, or by hand")
    last_job_id: Mapped[UUID | None] = mapped_column(comment="the job then made, or the one that had its unique key")

    __table_args__ = (Index("schedules_due", "next_run_at", postgresql_where=text("enabled")),)


class IdempotencyKey(Base):
    """An Idempotency-Key with the stored reply, so that a repeated request creates no jobs."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True, comment="the API key's name; empty without keys")
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(comment="of the method, the path and the body as JSON")
    reply: Mapped[dict[str, Any]] = mapped_column(comment="what was answered")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("idempotency_keys_age", "created_at"),)


counters = Table(
    "tallies",
    Base.metadata,
    Column("event", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("status", Text, comment="where it put the job"),
    Column("le", Double, comment="the bound of the bucket that the durations were in"),
    Column("number", BigInteger, nullable=False),
    Column("seconds", Double, comment="the sum of the durations"),
    # UNLOGGED: counters may restart from zero after a crash of Postgres, so they need no WAL.
    prefixes=["UNLOGGED"],
    comment="what /metrics counts; several rows of the same kind add up",
)
