"""Actions of the dashboard's buttons: the same as the API's routes, in Postgres, or an error with the reason."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import Flask, Response
from rq.job import Job as RQJob
from rq.registry import FailedJobRegistry

from jobsvc import jobs
from jobsvc.api import actions
from jobsvc.api.problems import problem
from jobsvc.api.submit import relay
from jobsvc.dispatch import rq_redis
from jobsvc.errors import JobNotFound

Answer = dict[str, Any] | Response


def requeue_job(job_id: str) -> Answer:
    """Retry a job that FAILED or was CANCELLED. Raises JobNotFound, WrongState and UniqueKeyTaken."""
    return _of_ours(job_id, actions.retry)


def delete_job(job_id: str) -> Answer:
    """Remove a job that has ended. Raises JobNotFound and WrongState."""
    return _of_ours(job_id, actions.delete)


def requeue_all(queue_name: str) -> Answer:
    """Retry every job that RQ lists as failed in a queue; the response has the number of retried jobs."""
    registry = FailedJobRegistry(queue_name, connection=rq_redis.connection(), serializer=rq_redis.SERIALIZER)
    ids = [found for job_id in registry.get_job_ids(cleanup=False) if (found := _as_uuid(job_id))]
    count = 0
    for batch in jobs.retry_listed(ids):
        relay().dispatch(one.dispatch for one in batch if one.dispatch)
        count += len(batch)
    return {"status": "OK", "count": count}


def empty_queue(queue_name: str, registry_name: str) -> Answer:
    """Return a 409: the jobs are in Postgres, and the next sweep would re-dispatch them."""
    return problem(409, "Conflict", f"Emptying is off: {_WOULD_BE_BACK} POST /jobs/cancel cancels all jobs of a queue.")


def compact_queue(queue_name: str) -> Answer:
    """Return a 409: compacting is not needed, entries without a job are skipped."""
    return problem(409, "Conflict", "Compacting is off: entries of a queue that have no job any more are passed by.")


_WOULD_BE_BACK = "jobs are in Postgres, and those taken out of RQ alone would be back within seconds."


def init_app(app: Flask) -> None:
    """Replace rq-dashboard's views with these."""
    views: dict[str, Callable[..., Answer]] = {
        "requeue_job_view": requeue_job,
        "delete_job_view": delete_job,
        "requeue_all": requeue_all,
        "empty_queue": empty_queue,
        "compact_queue": compact_queue,
    }
    for endpoint, view in views.items():
        app.view_functions[f"rq_dashboard.{endpoint}"] = view


def _of_ours(job_id: str, act: Callable[[UUID], object]) -> Answer:
    found = _as_uuid(job_id)
    try:
        if found is None:
            raise JobNotFound(f"no job has the id {job_id}")
        act(found)
    except JobNotFound:
        if not RQJob.exists(job_id, connection=rq_redis.connection()):
            raise
        detail = "RQ holds this job, but Postgres doesn't: another application made it, or it was deleted."
        return problem(409, "Conflict", detail)
    return {"status": "OK"}


def _as_uuid(job_id: str) -> UUID | None:
    """Return the id if it is a UUID in canonical spelling, as our jobs have it, else None."""
    try:
        found = UUID(job_id)
    except ValueError:
        return None
    return found if str(found) == job_id else None
