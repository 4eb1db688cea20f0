"""/healthz, /readyz and /metrics for monitoring; /openapi.json and /docs, a page to read it and try the API."""

import threading
import time
from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

from flask import (
    Blueprint,
    Response,
    current_app,
    jsonify,
    redirect,
    request,
    send_from_directory,
    url_for,
)
from prometheus_client.exposition import choose_encoder
from redis import RedisError
from sqlalchemy import select

from jobsvc.api import metrics
from jobsvc.api.openapi import document
from jobsvc.api.operation import Operation, Reply
from jobsvc.api.proxy import quote_prefix
from jobsvc.api.responses import HealthReply, LinksReply, ReadinessReply, RedisState, UpOrDown
from jobsvc.db.engine import check_writable, transaction
from jobsvc.db.models import Job
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.ownership import NamespaceTaken
from jobsvc.errors import StoreUnavailable

CHECK_SECONDS = 1.0
"""Maximum age of the last result of `check_writable`, which takes some 5 ms."""

ASSETS = str(files("flask_swagger_ui") / "dist")
NAMES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")

# No content from other hosts, and no inline scripts.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"  # noqa: E501

# The paths are relative, so that a proxy may add a prefix.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jobsvc</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#ui", deepLinking: true, tryItOutEnabled: true, validatorUrl: null,
});
"""

CONSOLE = "ui.overview"
"""Endpoint of the console's first page, if the console is on."""

LINKS = {
    "console": "/ui/",
    "jobs": "/jobs",
    "jobTypes": "/job-types",
    "schedules": "/schedules",
    "queues": "/queues",
    "workers": "/workers",
    "stats": "/stats",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "health": "/healthz",
    "readiness": "/readyz",
    "metrics": "/metrics",
    "dashboard": "/rq/",
}

blueprint = Blueprint("system", __name__)


@blueprint.get("/")
@Operation(
    "read",
    {
        200: Reply("The paths of the service.", LinksReply),
        302: Reply("To the console, for a client whose Accept names text/html.", None, ("Location",)),
    },
)
def get_links() -> Response:
    """List the paths of the service. A browser is redirected to the console."""
    has_console = CONSOLE in current_app.view_functions
    if has_console and "text/html" in request.headers.get("Accept", ""):
        response = cast(Response, redirect(url_for(CONSOLE)))
    else:
        paths = LINKS if has_console else {name: path for name, path in LINKS.items() if name != "console"}
        response = jsonify({name: f"{quote_prefix(request.root_path)}{path}" for name, path in paths.items()})
    response.vary.add("Accept")
    return response


@blueprint.get("/healthz")
@Operation(None, {200: Reply("The process is running.", HealthReply)})
def get_health() -> HealthReply:
    """Check that the process is running."""
    return {"status": "ok"}


@blueprint.get("/readyz")
@Operation(None, {200: Reply("Ready.", ReadinessReply), 503: Reply("Postgres is unavailable.", ReadinessReply)})
def get_readiness() -> tuple[ReadinessReply, int]:
    """Check that jobs can be accepted.

    This needs Postgres, writable and with its tables. Without Redis, jobs are accepted and run later.
    """
    postgres = _postgres()
    ready = postgres == "up"
    return {"status": "ok" if ready else "unavailable", "postgres": postgres, "redis": _redis()}, 200 if ready else 503


@blueprint.get("/metrics")
@Operation(
    "read",
    {200: Reply("The metrics in the text format of Prometheus, or OpenMetrics if Accept asks for it.", "text/plain")},
)
def get_metrics() -> Response:
    """Read the metrics for Prometheus; every process returns the same values."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(metrics.registry()), content_type=content_type)


def _postgres() -> UpOrDown:
    try:
        with transaction() as connection:
            connection.execute(select(Job.id).limit(1))
        _check_writable()
        return "up"
    except StoreUnavailable:
        return "down"


class _WriteCheck:
    """The last error of `check_writable`, or None, and when it is to be called again (monotonic seconds)."""

    lock = threading.Lock()
    failure: StoreUnavailable | None = None
    due_at = 0.0


def _check_writable() -> None:
    """Call `check_writable` at most once in CHECK_SECONDS per process; in between, raise its last error again."""
    with _WriteCheck.lock:
        if time.monotonic() >= _WriteCheck.due_at:
            _WriteCheck.failure = None
            try:
                check_writable()
            except StoreUnavailable as error:
                _WriteCheck.failure = error
            _WriteCheck.due_at = time.monotonic() + CHECK_SECONDS
        if _WriteCheck.failure:
            raise StoreUnavailable(str(_WriteCheck.failure))


def _redis() -> RedisState:
    try:
        rq_redis.probe()
        return "up"
    except NamespaceTaken:
        return "taken"
    except RedisError:
        return "down"


@blueprint.get("/openapi.json")
def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    prefix = {"servers": [{"url": request.root_path}]} if request.root_path else {}
    return {**_document(), **prefix}


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return document(current_app)


@blueprint.get("/docs")
def page() -> Response:
    """Return the page."""
    return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Return a file of the page."""
    if name == "start.js":
        return Response(START, content_type="text/javascript; charset=utf-8")
    return send_from_directory(ASSETS, name if name in NAMES else "nothing")
