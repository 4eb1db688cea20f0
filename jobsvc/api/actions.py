"""Actions on jobs, for the API, the command line and the dashboard: in Postgres, and by the relay in RQ."""

from collections.abc import Iterator
from uuid import UUID

from jobsvc import jobs
from jobsvc.api.patch_job import PatchJob
from jobsvc.api.submit import relay
from jobsvc.db.models import Job
from jobsvc.dispatch.duties import Duty
from jobsvc.jobs import Changes, Filter, Versions, Walk
from jobsvc.states import Status


def cancel(job_id: UUID, versions: Versions = None) -> Job:
    """Cancel a job, or request its cancel if it runs. Returns the job; raises as `jobs.cancel`."""
    job = jobs.cancel(job_id, versions)
    if job.status == Status.CANCELLED:
        relay().withdraw([job.id])
        relay().notify(Duty.DUE)
        if job.has_dependents:
            relay().notify(Duty.RELEASE)
    return job


def cancel_all(which: Filter, walk: Walk | None = None) -> Iterator[int]:
    """Cancel all matching jobs; yields the number of jobs in each committed batch."""
    for batch in jobs.cancel_all(which, walk):
        relay().withdraw(job_id for job_id, status in batch.items() if status == Status.CANCELLED)
        yield len(batch)
    relay().notify(Duty.RELEASE)
    relay().notify(Duty.DUE)


def update(job_id: UUID, patch: PatchJob, versions: Versions = None) -> Job:
    """Change a waiting job. Returns the job; raises as `PatchJob.changes` and `jobs.amend`."""
    changes = patch.changes(jobs.get(job_id).type) if patch.model_fields_set else Changes()
    job, dispatch = jobs.amend(job_id, changes, versions)
    if dispatch:
        relay().dispatch([dispatch])
    return job


def retry(job_id: UUID, versions: Versions = None) -> Job:
    """Retry a job: at once, or when its dependencies have ended. Returns the job; raises as `jobs.retry`."""
    job, dispatch = jobs.retry(job_id, versions)
    if dispatch:
        relay().dispatch([dispatch])
    return job


def retry_all(which: Filter, walk: Walk | None = None) -> Iterator[int]:
    """Retry all matching jobs; yields the number of jobs in each committed batch."""
    for batch in jobs.retry_all(which, walk):
        relay().dispatch(one.dispatch for one in batch if one.dispatch)
        yield len(batch)


def delete(job_id: UUID, versions: Versions = None) -> None:
    """Delete an ended job. Raises as `jobs.remove`."""
    jobs.remove(job_id, versions)
    relay().withdraw([job_id])


def delete_all(which: Filter, walk: Walk | None = None) -> Iterator[int]:
    """Delete all matching ended jobs; yields the number of jobs in each committed batch."""
    for batch in jobs.remove_all(which, walk):
        relay().withdraw(batch)
        yield len(batch)
