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


def _refuse_other_sites() -> Response | None:
    """rq-dashboard changes things on GET too, so a request that another site made is refused, whatever its method.

    `Sec-Fetch-Site` says so in every browser of today (W3C Fetch Metadata); Origin and Referer stand in.
    """
    if not is_dashboard(request.path):
        return None
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        is_ours = site in ("same-origin", "none")
    else:
        source = request.headers.get("Origin") or request.headers.get("Referer")
        is_ours = source is None or f"{source}/".startswith(request.host_url)
    return None if is_ours else problem(403, "Forbidden", "The dashboard answers only to its own pages.")


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
    app.before_request(_refuse_other_sites)
    app.before_request(_refuse_other_instances)
    app.register_error_handler(NoSuchJobError, _no_such_job)
    # Its base template asks for the icon of the app that it thinks is its own.
    app.static_folder = rq_dashboard.blueprint.static_folder
    app.add_url_rule(f"{PREFIX}/static/<path:filename>", endpoint="static", view_func=app.send_static_file)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix=PREFIX)
