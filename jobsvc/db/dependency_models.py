"""The tables of dependencies between jobs."""

from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from jobsvc.db.models import Base


class Dependency(Base):
    """A job that another one depends on. Kept until the dependent is deleted."""

    __tablename__ = "dependencies"

    # No foreign keys: each delete of any job would have to search this table.
    dependency_id: Mapped[UUID] = mapped_column(primary_key=True)
    dependent_id: Mapped[UUID] = mapped_column(primary_key=True)
    is_open: Mapped[bool] = mapped_column(
        comment="true while the BLOCKED dependent waits for the end of the dependency"
    )


class PendingRelease(Base):
    """An ended job some of whose dependents are still to be released or cancelled, by a relay."""

    __tablename__ = "pending_releases"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    after: Mapped[UUID | None] = mapped_column(comment="id of the last dependent that was released; null: none yet")
