"""The table of stored replies."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func
from sqlalchemy.orm import Mapped, mapped_column

from jobsvc.db.models import Base


class IdempotencyKey(Base):
    """An Idempotency-Key with the stored reply, so that a repeated request creates no jobs."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(primary_key=True, comment="name of the API key; empty without authentication")
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(comment="hash of method, path and JSON body")
    reply: Mapped[dict[str, Any]] = mapped_column(comment="stored reply")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("idempotency_keys_age", "created_at"),)
