"""Reads the results of a job's dependencies, for its handler."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from jobsvc.db.engine import statement

_completed = (
    text(
        """
    SELECT CAST(dependency.id AS text) AS id
    FROM jobs AS job, unnest(job.depends_on) WITH ORDINALITY AS wanted (id, n), jobs AS dependency
    WHERE job.id = :job AND dependency.id = wanted.id AND dependency.status = 'COMPLETED' ORDER BY wanted.n
    """
    )
    .bindparams(bindparam("job", type_=Uuid))
    .columns(id=Text)
)

_result = (
    text(
        """
    SELECT dependency.result
    FROM jobs AS job, jobs AS dependency
    WHERE job.id = :job AND dependency.id = :dependency AND dependency.id = ANY(job.depends_on)
    AND dependency.status = 'COMPLETED'
    """
    )
    .bindparams(bindparam("job", type_=Uuid), bindparam("dependency", type_=Uuid))
    .columns(result=JSONB)
)


def completed_dependencies(job_id: UUID) -> Sequence[str]:
    """Return the ids of the COMPLETED jobs that this job depends on, as text, in the order of `dependsOn`."""
    with statement() as connection:
        return connection.scalars(_completed, {"job": job_id}).all()


def dependency_result(job_id: UUID, dependency_id: UUID) -> Any:
    """Return the result of a COMPLETED job that this job depends on. Raises KeyError for any other id."""
    with statement() as connection:
        found = connection.execute(_result, {"job": job_id, "dependency": dependency_id}).one_or_none()
    if found is None:
        raise KeyError(str(dependency_id))
    return found.result
