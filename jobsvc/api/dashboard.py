"""/rq/: rq-dashboard, inside this service and behind its keys."""

import re

import rq.serializers
import rq_dashboard
from flask import Flask, Response, request
from rq.exceptions import NoSuchJobError
from rq_dashboard import web

from jobsvc import rqsettings
from jobsvc.api.problems import problem

PREFIX = "/rq"


_NUMBER = re.compile("[1-9][0-9]{0,8}")


def _refuse_what_it_does_not_have() -> Response | None:
    """rq-dashboard numbers the Redis servers that it shows, here one, and divides by any page size in its path."""
    given = (request.view_args or {}) if is_dashboard(request.path) else {}
    if given.get("instance_number", 0) > 0:
        return problem(404, "Not Found", "The dashboard shows one Redis, number 0.")
    if not all(_NUMBER.fullmatch(str(given.get(name, 1))) for name in ("page", "per_page")):
        return problem(404, "Not Found", "There is no such page of jobs.")
    return None


def _no_such_job(error: NoSuchJobError) -> Response:
    return problem(404, "Not Found", "RQ doesn't hold this job; GET /jobs/:id shows it.")


def is_dashboard(path: str) -> bool:
    """Whether a path belongs to the dashboard."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def init_app(app: Flask) -> None:
    """Mount the dashboard."""
    app.config["RQ_DASHBOARD_REDIS_URL"] = rqsettings.REDIS_URL
    web.config.serializer = rqsettings.SERIALIZER
    # Some of its pages fetch jobs without naming a serializer; RQ's default, pickle, would run what it reads.
    rq.serializers.PickleSerializer = rqsettings.SERIALIZER  # type: ignore[assignment]
    web.setup_rq_connection(app)
    app.before_request(_refuse_what_it_does_not_have)
    app.register_error_handler(NoSuchJobError, _no_such_job)
    # Its base template asks for the icon of the app that it thinks is its own.
    app.static_folder = rq_dashboard.blueprint.static_folder
    app.add_url_rule(f"{PREFIX}/static/<path:filename>", endpoint="static", view_func=app.send_static_file)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix=PREFIX)
