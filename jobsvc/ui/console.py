"""The console's blueprint: headers, errors, and how a page is rendered."""

import hashlib
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, Response, abort, render_template, request

from jobsvc import jobs
from jobsvc.api.problems import PROBLEM, answer_error
from jobsvc.api.scopes import has_scope
from jobsvc.config import settings
from jobsvc.jobs import current_time
from jobsvc.ui import formats
from jobsvc.ui.links import api, curl, given, here, with_query, without

# Nothing from other hosts, and neither inline scripts nor inline styles.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

HOUR, MINUTE = 3600, 60

blueprint = Blueprint(
    "ui", __name__, url_prefix="/ui", template_folder="templates", static_folder="static", static_url_path="/static"
)


def init_app(app: Flask) -> None:
    """Add the console's pages to the application, unless JOBSVC_UI is off."""
    if settings().JOBSVC_UI == "off":
        return
    from jobsvc.ui import job_pages, new_job, overview, queue_pages, schedule_pages  # noqa: F401

    app.register_blueprint(blueprint)


def show(
    template: str, title: str, command: str, *, status: int = 200, failed: int | None = None, **values: Any
) -> Response:
    """Return a page. command: curl's for the same data. failed: failures of the last hour. Raises StoreUnavailable."""
    if failed is None:
        last_hour = jobs.read_history(HOUR, MINUTE, by=()).series if status == 200 else ()
        failed = sum(series.whole.failed for series in last_hour)
    html = render_template(f"ui/{template}.html", title=title, curl=command, failed=failed, **values)
    response = Response(html, status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    if status == 200:
        response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:32])
        response.make_conditional(request)
    return response


@blueprint.before_request
def _refuse_nul() -> None:
    """Abort with 404 for a name that Postgres can't hold."""
    if "\0" in request.path:
        abort(404)


@blueprint.app_context_processor
def _helpers() -> dict[str, Callable[..., Any]]:
    return {one.__name__: one for one in (has_scope, settings, current_time, api, here, given, with_query, without)}


@blueprint.record_once
def _add_filters(state: Any) -> None:
    state.app.jinja_env.filters.update({one.__name__.removeprefix("format_"): one for one in formats.FILTERS})


@blueprint.errorhandler(Exception)
def _show_error(error: Exception) -> Response:
    """Answer a browser with a page; any other client gets the problem document of the API."""
    problem = answer_error(error)
    problem.vary.add("Accept")
    wanted = request.accept_mimetypes.best_match([PROBLEM, "text/html"], PROBLEM)
    if wanted == PROBLEM or problem.mimetype != PROBLEM:
        return problem
    found = problem.get_json(force=True)
    page = show("error", found["title"], curl(request.path), status=problem.status_code, problem=found, alerts=[])
    page.headers.extend((name, value) for name, value in problem.headers if name in ("Retry-After", "Vary"))
    return page


@blueprint.get("/<path:rest>")
def no_page(rest: str) -> Response:
    """Answer a path without a page."""
    abort(404)
