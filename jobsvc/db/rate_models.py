"""The table of starts under a rate limit."""

from datetime import datetime

from sqlalchemy import BigInteger, Index
from sqlalchemy.orm import Mapped, mapped_column

from jobsvc.db.models import Base


class RateStart(Base):
    """A start under a rate limit. The starts of a key have consecutive numbers, in the order of their times."""

    __tablename__ = "rate_starts"

    key: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    started_at: Mapped[datetime]

    __table_args__ = (Index("rate_starts_time", "key", "started_at", "number"),)
