"""The tables from which `jobsvc_enqueue` knows the job types and queues."""

from datetime import datetime
from typing import Any

from sqlalchemy import Double
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobsvc.db.models import Base


class JobType(Base):
    """A job type with its handler's defaults, as registered by the process that started last."""

    __tablename__ = "job_types"

    name: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str]
    timeout: Mapped[float] = mapped_column(Double, comment="seconds per attempt")
    retry: Mapped[dict[str, Any]] = mapped_column(comment="retry policy, in the words of POST /jobs")
    rate_limit: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="rate limit, in the words of POST /jobs; null: none"
    )
    updated_at: Mapped[datetime] = mapped_column(comment="last start of a process that has a handler of it")


class ServedQueue(Base):
    """A queue that a process serves, or accepts jobs for."""

    __tablename__ = "served_queues"

    name: Mapped[str] = mapped_column(primary_key=True)
    updated_at: Mapped[datetime] = mapped_column(comment="last start of a process that has it in its settings")
