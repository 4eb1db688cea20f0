"""The console's blueprint: headers, errors, and how a page is rendered."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, abort, g, render_template, request, url_for

from jobsvc import jobs
from jobsvc.api.problems import PROBLEM, answer_error
from jobsvc.config import Scope, settings
from jobsvc.ui import formats, links

# Nothing from other hosts, and neither inline scripts nor inline styles.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

STATIC = Path(__file__).parent / "static"
HOUR = 3600

blueprint = Blueprint(
    "ui", __name__, url_prefix="/ui", template_folder="templates", static_folder=str(STATIC), static_url_path="/static"
)


def init_app(app: Flask) -> None:
    """Add the console's pages to the application, unless JOBSVC_UI is off."""
    if settings().JOBSVC_UI == "off":
        return
    from jobsvc.ui import failures, job_pages, new_job, overview, queue_pages, schedule_pages, webhook_pages  # noqa: F401

    app.register_blueprint(blueprint)


def show(template: str, title: str, curl: str, *, status: int = 200, **values: Any) -> Response:
    """Return a page. curl: the command that reads the same from the API. Raises StoreUnavailable."""
    failed = _failed_in_last_hour() if status < 500 else 0
    html = render_template(f"ui/{template}.html", title=title, curl=curl, failed=failed, **values)
    response = Response(html, status, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    if status == 200:
        response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:32])
        response.make_conditional(request)
    return response


def _failed_in_last_hour() -> int:
    return sum(series.whole.failed for series in jobs.read_history(HOUR, HOUR, by=()).series)


def may(scope: Scope) -> bool:
    """Return True if the caller's key has this scope, or no key is needed."""
    ladder = ("read", "write", "admin")
    return settings().is_open or ladder.index(g.get("scope", "read")) >= ladder.index(scope)


@lru_cache
def _version(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def asset(name: str) -> str:
    """Return the URL of a static file, with a part that changes with its content, so that browsers may keep it."""
    return url_for("ui.static", filename=name, v=_version(name))


@blueprint.after_request
def _keep_assets(response: Response) -> Response:
    if request.endpoint == "ui.static" and request.args.get("v"):
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response


@blueprint.app_context_processor
def _helpers() -> dict[str, Callable[..., Any]]:
    return {
        "may": may,
        "now": jobs.current_time,
        "asset": asset,
        "api": links.api,
        "with_query": links.with_query,
        "without": links.without,
    }


@blueprint.record_once
def _add_filters(state: Any) -> None:
    state.app.jinja_env.filters.update(formats.FILTERS)


@blueprint.errorhandler(Exception)
def _show_error(error: Exception) -> Response:
    """Answer a browser with a page; any other client gets the problem document of the API."""
    problem = answer_error(error)
    problem.vary.add("Accept")
    if "text/html" not in request.headers.get("Accept", "") or problem.mimetype != PROBLEM:
        return problem
    found = problem.get_json(force=True)
    page = show("error", found["title"], links.curl(request.path), status=problem.status_code, problem=found, alerts=[])
    page.headers.extend((name, value) for name, value in problem.headers if name in ("Retry-After", "Vary"))
    return page


@blueprint.get("/<path:rest>")
def no_page(rest: str) -> Response:
    """Answer a path without a page."""
    abort(404)
