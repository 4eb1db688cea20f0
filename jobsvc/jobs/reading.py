"""Jobs as they stand."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobsvc.db import transaction
from jobsvc.errors import JobNotFound
from jobsvc.models import Attempt, Job


def get(job_id: UUID) -> Job:
    """The job. Raises JobNotFound."""
    with transaction() as connection:
        return load(Session(connection), job_id)


def history(job_id: UUID) -> tuple[Job, list[Attempt]]:
    """The job, and its attempts that have rows (see Attempt), in the order they began. Raises JobNotFound."""
    with transaction() as connection:
        session = Session(connection)
        job = load(session, job_id)
        return job, list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)))


def load(session: Session, job_id: UUID) -> Job:
    """The job, within a transaction of the caller's. Raises JobNotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(f"no job has the id {job_id}")
    return job
