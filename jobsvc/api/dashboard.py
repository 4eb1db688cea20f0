"""/rq/: rq-dashboard, inside this service and behind its keys."""

import rq.serializers
import rq_dashboard
from flask import Flask, Response, request
from rq.exceptions import NoSuchJobError
from rq_dashboard import web

from jobsvc import rqsettings
from jobsvc.api.problems import problem

PREFIX = "/rq"


def _refuse_other_instances() -> Response | None:
    """rq-dashboard numbers the Redis servers that it shows; here there is one."""
    if is_dashboard(request.path) and (request.view_args or {}).get("instance_number", 0) > 0:
        return problem(404, "Not Found", "The dashboard shows one Redis, number 0.")
    return None


def _no_such_job(error: NoSuchJobError) -> Response:
    return problem(404, "Not Found", "RQ doesn't hold this job; GET /jobs/:id shows it.")


def _no_such_page(error: ArithmeticError) -> Response:
    return problem(404, "Not Found", "There is no such page of jobs.")


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
    app.before_request(_refuse_other_instances)
    app.register_error_handler(NoSuchJobError, _no_such_job)
    if not rq_dashboard.blueprint.error_handler_spec[None]:
        # It divides by the page size of the path.
        rq_dashboard.blueprint.register_error_handler(ZeroDivisionError, _no_such_page)
    # Its base template asks for the icon of the app that it thinks is its own.
    app.static_folder = rq_dashboard.blueprint.static_folder
    app.add_url_rule(f"{PREFIX}/static/<path:filename>", endpoint="static", view_func=app.send_static_file)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix=PREFIX)
