"""/rq/: rq-dashboard, mounted in this service and protected by its API keys."""

import logging
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import rq.serializers
import rq_dashboard
from flask import Flask, Response, request
from redis.exceptions import ResponseError
from rq import Queue, Worker
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job as RQJob
from rq.utils import as_text
from rq_dashboard import web

from jobsvc import jobs
from jobsvc.api import dashboard_buttons, dashboard_pages
from jobsvc.api.problems import problem
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis, rq_workers
from jobsvc.dispatch.rq_names import from_rq, ids_in, to_rq
from jobsvc.errors import JobNotFound

logger = logging.getLogger("jobsvc.api")

PREFIX = "/rq"

_NUMBER = re.compile("[1-9][0-9]{0,8}")

MAX_PER_PAGE = 1000
"""Maximum number of jobs per page; each is fetched from Redis by a call of its own."""

# Format of each argument in the dashboard's paths. RQ raises ValueError for other job ids.
_ARGUMENTS: dict[str, re.Pattern[str]] = {
    "instance_number": re.compile("0"),
    "job_id": re.compile("[A-Za-z0-9_-]{1,200}"),
    "registry_name": re.compile("queued|scheduled|deferred|started|finished|failed|canceled"),
    "order": re.compile("asc|dsc"),
    "page": _NUMBER,
    "per_page": _NUMBER,
}

_UNREADABLE = (DeserializationError, ValueError, TypeError)
"""Raised by RQ and the dashboard for jobs of other applications, stored by another serializer."""


class ReadingQueue(Queue):
    """A read-only queue. RQ's own class removes the ids of jobs that no longer exist from the queue."""

    def __init__(self, name: str | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(name or to_rq(settings().default_queue), *args, **kwargs)

    @classmethod
    def all(cls, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the queues of this namespace."""
        return [queue for queue in super().all(*args, **kwargs) if from_rq(queue.name) is not None]

    def fetch_job(self, job_id: str) -> RQJob | None:
        """Return the job, or None if it doesn't exist, is in another queue, or can't be read."""
        try:
            job = self.job_class.fetch(job_id, connection=self.connection, serializer=self.serializer)
        except (NoSuchJobError, *_UNREADABLE):
            return None
        return job if job.origin == self.name else None


class ReadingWorker(Worker):
    """A read-only worker. RQ's own class unregisters workers whose key has expired."""

    @classmethod
    def all(cls, connection: Any = None, *_: Any, **__: Any) -> list[Any]:
        """Return the workers of this namespace, each with only its queues in this namespace."""
        found = (
            cls.find_by_key(key, connection, serializer=rq_redis.SERIALIZER)
            for key in rq_workers.keys_of_namespace(connection)
        )
        workers = [worker for worker in found if worker is not None]
        for worker in workers:
            worker.queues = [queue for queue in worker.queues if from_rq(queue.name) is not None]
        return workers

    def get_current_job(self, *_: Any, **__: Any) -> RQJob | None:
        """Return the worker's job; None if there is none, it can't be read, or is outside this namespace."""
        try:
            job = super().get_current_job()
        except (NoSuchJobError, *_UNREADABLE):
            return None
        return job if job and from_rq(job.origin or "") is not None else None


def _check_arguments() -> Response | None:
    """Return a 404 for invalid path arguments: the dashboard would fail, or show an empty page. Else None."""
    given = request.view_args if request.endpoint and request.endpoint.startswith("rq_dashboard.") else None
    for name, value in (given or {}).items():
        if name in _ARGUMENTS and not _ARGUMENTS[name].fullmatch(str(value)):
            return problem(404, "Not Found", f"The dashboard shows nothing for this {name.replace('_', ' ')}.")
        if name == "per_page" and int(value) > MAX_PER_PAGE:
            return problem(404, "Not Found", f"A page has at most {MAX_PER_PAGE} jobs.")
        if name == "queue_name" and not _is_queue(value):
            return problem(404, "Not Found", "RQ knows no queue of this name in this service's namespace.")
        if name == "job_id" and _is_elsewhere(value):
            return problem(404, "Not Found", "RQ holds this job outside this service's namespace.")
    return None


def _is_queue(name: str | None) -> bool:
    ours = None if name is None else from_rq(name)
    if name is None or ours in settings().JOBSVC_QUEUES:
        return True
    if ours is None:
        return False
    key = f"{Queue.redis_queue_namespace_prefix}{name}"
    return bool(rq_redis.connection().sismember(Queue.redis_queues_keys, key))


def _is_elsewhere(job_id: str) -> bool:
    """Return True for a job in a queue outside our namespace, unless it is ours, from before version 0.2."""
    origin = rq_redis.connection().hget(RQJob.key_for(job_id), "origin")
    if origin is None or from_rq(str(as_text(origin))) is not None:
        return False
    try:
        return not [jobs.get(found) for found in ids_in([job_id])]
    except JobNotFound:
        return True


def _readable_job(job: RQJob) -> dict[str, Any]:
    """Return rq-dashboard's fields of a listed job, or placeholders if it can't be read."""
    try:
        return dict(_serialize_job(job))
    except _UNREADABLE:
        return {"id": job.id, "description": "(not readable)", "created_at": None, "ended_at": None, "exc_info": None}


def _readable_current_job(job: RQJob | None) -> Any:
    try:
        return _serialize_current_job(job)
    except _UNREADABLE:
        return {"job_id": job.id if job else "", "description": None, "created_at": None, "call_string": "?"}


_serialize_job = web.serialize_job
_serialize_current_job = web.serialize_current_job


def _or_404(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def reading_view(**arguments: Any) -> Any:
        try:
            return view(**arguments)
        except (ResponseError, *_UNREADABLE) as error:  # ResponseError: the Redis key has another type
            logger.warning("dashboard: %s is not readable (%s)", request.endpoint, type(error).__name__)
            return problem(404, "Not Found", "RQ holds something here that can't be read as a job of this service.")

    return reading_view


def _no_such_job(error: NoSuchJobError) -> Response:
    return problem(404, "Not Found", "RQ doesn't hold this job; GET /jobs/:id shows it.")


class _NeverRaised(Exception):
    """Replaces the exception that rq-dashboard would answer with an HTML page of its own."""


def is_dashboard(path: str) -> bool:
    """Return True if a path belongs to the dashboard."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def init_app(app: Flask) -> None:
    """Mount the dashboard."""
    # Only shown on its pages: the connection is ours, with our timeouts.
    app.config["RQ_DASHBOARD_REDIS_URL"] = ("Redis",)
    web.from_url = lambda *_, **__: (None, rq_redis.connection())
    web.config.serializer = rq_redis.SERIALIZER
    # Some of its pages fetch jobs without naming a serializer; RQ's default, pickle, could execute what it reads.
    rq.serializers.PickleSerializer = rq_redis.SERIALIZER  # type: ignore[assignment]
    web.Queue, web.Worker = ReadingQueue, ReadingWorker
    web.serialize_job, web.serialize_current_job = _readable_job, _readable_current_job
    web.RedisConnectionError = _NeverRaised
    web.setup_rq_connection(app)
    app.before_request(_check_arguments)
    app.register_error_handler(NoSuchJobError, _no_such_job)
    # Its base template takes its icon from the app's static folder.
    app.static_folder = rq_dashboard.blueprint.static_folder
    app.add_url_rule(f"{PREFIX}/static/<path:filename>", endpoint="static", view_func=app.send_static_file)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix=PREFIX)
    dashboard_pages.init_app(app)
    for endpoint in [name for name in app.view_functions if name.startswith("rq_dashboard.")]:
        app.view_functions[endpoint] = _or_404(app.view_functions[endpoint])
    dashboard_buttons.init_app(app)
    _take_no_get(app, "rq_dashboard.requeue_all")


def _take_no_get(app: Flask, endpoint: str) -> None:
    """Disallow GET and HEAD for this view, since it changes state."""
    for rule in app.url_map.iter_rules(endpoint):
        if rule.methods:
            rule.methods -= {"GET", "HEAD"}
