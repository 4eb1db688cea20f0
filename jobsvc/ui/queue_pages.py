"""Queues, job types, and workers."""

import json

from flask import Response, abort

from jobsvc import handlers, jobs
from jobsvc.api.job_types_reply import dump_job_type
from jobsvc.api.redis_view import recent_redis
from jobsvc.api.validation import known_queue
from jobsvc.config import settings
from jobsvc.jobs import Filter
from jobsvc.ui import links
from jobsvc.ui.console import HOUR, MINUTE, blueprint, show
from jobsvc.ui.job_pages import describe
from jobsvc.ui.overview import chart_values

SAMPLE = 1000
"""Number of the newest failures of all jobs in which those of a queue or a type are found, for a quick page."""


@blueprint.get("/queues")
def list_queues() -> Response:
    """Show the queues and the job types."""
    known = [handlers.find(name) for name in handlers.names()]
    queues = jobs.queue_counts(settings().JOBSVC_QUEUES)
    return show("queues", "Queues and types", links.curl("/queues"), queues=queues, types=known)


@blueprint.get("/queues/<name>")
def show_queue(name: str) -> Response:
    """Show a queue: its last hour, its counts, its failures, and the workers that serve it."""
    queue = jobs.queue_counts([name], has_others=False)[0]
    if not any(count.number for count in queue.counts.values()):
        known_queue(name)
    return show(
        "queue",
        f"Queue {name}",
        links.curl("/stats", {"queue": name}.items()),
        name=name,
        queues=[queue],
        groups=describe(jobs.failure_groups(queue=name, sample=SAMPLE), queue=name),
        workers=[worker for worker in recent_redis().workers if name in worker.queues],
        **chart_values(jobs.read_history(HOUR, MINUTE, queue=name, by=())),
    )


@blueprint.get("/types/<path:name>")
def show_type(name: str) -> Response:
    """Show a job type: its last hour, its counts, its failures, its workers, and its handler's declaration."""
    handler = handlers.find(name)
    counts = jobs.count_by_status(Filter(type=name))
    if handler is None and not any(count.number or not count.is_complete for count in counts.values()):
        abort(404, "There is no handler of this job type, and no job has it.")
    declared = dump_job_type(handler) if handler else None
    return show(
        "type",
        name,
        links.curl("/stats", {"type": name}.items()),
        name=name,
        counts=counts,
        declared=declared,
        schema=json.dumps(declared["payloadSchema"], indent=2) if declared else "",
        groups=describe(jobs.failure_groups(type=name, sample=SAMPLE)),
        workers=[worker for worker in recent_redis().workers if worker.types is None or name in worker.types],
        **chart_values(jobs.read_history(HOUR, MINUTE, type_=name, by=())),
    )


@blueprint.get("/workers")
def list_workers() -> Response:
    """Show the workers."""
    redis = recent_redis()
    return show("workers", "Workers", links.curl("/workers"), redis=redis, workers=redis.workers)
