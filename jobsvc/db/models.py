"""The tables in Postgres."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    MetaData,
    SmallInteger,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobsvc.db import conditions
from jobsvc.states import Outcome, Status


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


_error_type, _error_line = text(conditions.ERROR_TYPE), text(conditions.ERROR_LINE)
Moment = TIMESTAMP(timezone=True)
_JSON = JSONB(none_as_null=True)


def _index(name: str, *columns: Any, where: str, **options: Any) -> Index:
    return Index(name, *columns, postgresql_where=text(where), **options)


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
    type_annotation_map = {
        str: Text,
        datetime: Moment,
        list[str]: ARRAY(Text),
        list[UUID]: ARRAY(Uuid),
        dict[str, Any]: JSONB,
    }


class Job(Base):
    """A job: the client's request, and its current state. Only the package `jobs` writes rows."""

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    queue: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    tags: Mapped[list[str] | None] = mapped_column(comment="null if there are none, so that the index has no entry")
    unique_key: Mapped[str | None] = mapped_column(comment="unique among the unfinished jobs of a type")
    concurrency_key: Mapped[str | None] = mapped_column(comment="at most concurrency_limit such jobs run at once")
    concurrency_limit: Mapped[int | None]
    rate_key: Mapped[str | None] = mapped_column(comment="at most rate_limit such jobs start in any rate_per seconds")
    rate_limit: Mapped[int | None]
    rate_per: Mapped[float | None] = mapped_column(Double)
    depends_on: Mapped[list[UUID] | None] = mapped_column(comment="jobs that must end before it starts; null if none")
    on_dependency_failure: Mapped[str | None] = mapped_column(comment="cancel or run; null if it depends on none")
    open_dependencies: Mapped[int | None] = mapped_column(comment="of a BLOCKED job: dependencies that have not ended")
    has_dependents: Mapped[bool | None] = mapped_column(comment="true once a job depends on it; else null")
    traceparent: Mapped[str | None] = mapped_column(comment="W3C Trace Context of the request that created the job")

    run_at: Mapped[datetime | None] = mapped_column(comment="earliest start that the client requested")
    expires_at: Mapped[datetime | None] = mapped_column(comment="the job fails if it has not started by then")
    expiry_met: Mapped[datetime | None] = mapped_column(comment="expires_at of a job that started in time; only shown")
    timeout: Mapped[float] = mapped_column(Double, comment="seconds per attempt")
    retry_intervals: Mapped[list[float]] = mapped_column(ARRAY(Double), comment="seconds before each retry")
    max_attempts: Mapped[int]

    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime] = mapped_column(comment="earliest start of the next attempt")
    dispatched_at: Mapped[datetime | None] = mapped_column(
        comment="last dispatch to RQ; before due_at: to be dispatched; infinity: withheld; year 9999: no handler"
    )
    fence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"), comment="number of the last start")
    worker: Mapped[str | None] = mapped_column(comment="RQ's name of the last attempt's worker")
    lease_expires_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None] = mapped_column(comment="start of the last attempt")
    finished_at: Mapped[datetime | None] = mapped_column(comment="when the job ended")
    cancel_requested_at: Mapped[datetime | None] = mapped_column(comment="request to stop the running attempt")
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"), comment="grows with each visible change")

    progress: Mapped[dict[str, Any] | None] = mapped_column(_JSON)
    result: Mapped[Any | None] = mapped_column(_JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(_JSON, comment="error of the last failed attempt")
    webhook_url: Mapped[str | None] = mapped_column(comment="receives a request each time the job ends")
    webhook_job_id: Mapped[UUID | None] = mapped_column(comment="the job that sends the latest webhook request")

    __table_args__ = (
        CheckConstraint(_one_of("status", Status), name="status"),
        # Indexes for the sweep, each on the few rows that a query may return.
        _index("jobs_to_dispatch", "due_at", where=conditions.IS_TO_DISPATCH),
        _index("jobs_in_rq", "queue", "dispatched_at", where=conditions.IS_DISPATCHED),
        _index("jobs_to_expire", "expires_at", where=f"{conditions.IS_WAITING} AND expires_at IS NOT NULL"),
        # On the id, not on the lease, so that renewing a lease updates no index.
        _index("jobs_running", "id", where=conditions.IS_RUNNING),
        _index("jobs_unique_key", "type", "unique_key", unique=True, where=conditions.HOLDS_UNIQUE_KEY),
        # Jobs that count against a concurrency limit, and withheld jobs: few rows are read however many wait.
        _index(
            "jobs_concurrency_key",
            "concurrency_key",
            where=f"{conditions.HAS_CONCURRENCY_KEY} AND {conditions.OCCUPIES_SLOT}",
        ),
        _index(
            "jobs_withheld_by_key",
            "concurrency_key",
            *map(text, conditions.LANE_OF_CONCURRENCY_KEY),
            "due_at",
            where=f"{conditions.HAS_CONCURRENCY_KEY} AND {conditions.IS_WITHHELD}",
        ),
        _index("jobs_rate_key", "rate_key", where=f"{conditions.HAS_RATE_KEY} AND {conditions.IS_IN_RQ}"),
        _index(
            "jobs_withheld_by_rate",
            "rate_key",
            *map(text, conditions.LANE_OF_RATE_KEY),
            "due_at",
            where=f"{conditions.HAS_RATE_KEY} AND {conditions.IS_WITHHELD}",
        ),
        _index("jobs_withheld_by_pause", "queue", "due_at", where=conditions.IS_WITHHELD_BY_PAUSE),
        _index("jobs_awaiting_handler", "queue", "type", "due_at", where=conditions.AWAITS_HANDLER),
        _index("jobs_ended", "queue", "status", where="finished_at IS NOT NULL"),
        # Indexes for the list. A successful job without tags writes to none of them (decision 0007).
        _index(
            "jobs_status",
            "status",
            "id",
            where=conditions.IS_INDEXED_BY_STATUS,
            postgresql_include=["type", "queue"],  # counts by type and queue read no rows of the table
        ),
        _index("jobs_error_type", _error_type, "id", where=conditions.HAS_ERROR),
        _index("jobs_error_line", _error_line, "id", where=conditions.HAS_ERROR),
        _index("jobs_error", _error_type, _error_line, "id", where=conditions.HAS_ERROR),
        Index(
            "jobs_type_queue",
            "type",
            "queue",
            postgresql_using="brin",
            postgresql_ops={"type": "text_bloom_ops", "queue": "text_bloom_ops"},
            postgresql_with={"autosummarize": "on"},
        ),
        _index("jobs_tags", "tags", where="tags IS NOT NULL", postgresql_using="gin"),
        {"postgresql_with": {"fillfactor": "80"}},
    )


class Attempt(Base):
    """A finished attempt that logged or did not succeed. For a success without logs the job's row has all data."""

    __tablename__ = "attempts"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(comment="value of ctx.attempt")
    worker: Mapped[str | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime] = mapped_column(server_default=func.now())
    outcome: Mapped[str]
    error_type: Mapped[str | None]
    error_message: Mapped[str | None]
    traceback: Mapped[str | None]
    logs: Mapped[list[dict[str, Any]] | None] = mapped_column(
        _JSON, comment="[{time, level, message}] stored at the end; null if none"
    )
    last_line: Mapped[int | None] = mapped_column(BigInteger, comment="last line in logs; null: logs has all lines")

    __table_args__ = (CheckConstraint(_one_of("outcome", Outcome), name="outcome"),)


class AttemptLines(Base):
    """Log lines stored while an attempt ran. Rows may overlap; `last_line` and the number of lines show it."""

    __tablename__ = "attempt_lines"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_line: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, comment="counted from 1")
    number: Mapped[int] = mapped_column(comment="value of ctx.attempt")
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, comment="[{time, level, message}], consecutive")


class Queue(Base):
    """A paused queue. A queue that is not paused has no row."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[datetime | None] = mapped_column(comment="start of the pause, in which no job is started")


class Deployment(Base):
    """This database's identity, which distinguishes it from others whose jobs are in the same Redis."""

    __tablename__ = "deployment"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False, comment="always 1")
    owner: Mapped[UUID] = mapped_column(comment="id in Redis of the namespace's owner")

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class Schedule(Base):
    """A job to be submitted at each tick of a cron expression."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    cron: Mapped[str]
    timezone: Mapped[str]
    enabled: Mapped[bool]
    job: Mapped[dict[str, Any]] = mapped_column(comment="body of POST /jobs as given by the client")
    new_job: Mapped[dict[str, Any]] = mapped_column(comment="the same job with all defaults filled in")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_run_at: Mapped[datetime | None] = mapped_column(comment="next tick; null while disabled")
    last_run_at: Mapped[datetime | None] = mapped_column(comment="last run, by a tick or by request")
    last_job_id: Mapped[UUID | None] = mapped_column(comment="job of the last run, or one with its unique key")

    __table_args__ = (_index("schedules_due", "next_run_at", where="enabled"),)
