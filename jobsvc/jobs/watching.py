"""Jobs that somebody watches: what has changed about many of them, by one query."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Uuid, select

from jobsvc.db import transaction
from jobsvc.models import Job
from jobsvc.sql import rows
from jobsvc.states import ENDED, Status


@dataclass(frozen=True)
class Snapshot:
    """How far a job has come; `version` grows with every change that is shown."""

    job_id: UUID
    version: int
    status: Status
    attempts: int
    progress: dict[str, Any] | None
    error: dict[str, Any] | None

    @classmethod
    def of(cls, job: Job) -> "Snapshot":
        """What this job's row says."""
        return cls(job.id, job.version, Status(job.status), job.attempts, job.progress, job.error)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


_known = rows("known", id=Uuid, version=BigInteger)
_changes = (
    select(_known.c.id, Job.version, Job.status, Job.attempts, Job.progress, Job.error)
    .select_from(_known.outerjoin(Job, Job.id == _known.c.id))
    .where(Job.version.is_distinct_from(_known.c.version))
)


def changes(known: Mapping[UUID, int]) -> dict[UUID, Snapshot | None]:
    """Those of these jobs that don't have the version known of them, as they are now; None for one that is gone."""
    with transaction() as connection:
        found = connection.execute(
            _changes, {"rows": [{"id": str(job_id), "version": version} for job_id, version in known.items()]}
        )
        return {row.id: None if row.version is None else Snapshot(*row) for row in found}
