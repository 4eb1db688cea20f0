"""/openapi.json, and /docs: a page to read the document and try the API, made of packaged files."""

from functools import lru_cache
from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, current_app, request, send_from_directory

from jobsvc.api.auth import needs
from jobsvc.api.openapi import document

blueprint = Blueprint("docs", __name__)

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


@blueprint.get("/openapi.json")
def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    prefix = {"servers": [{"url": request.root_path}]} if request.root_path else {}
    return {**_document(), **prefix}


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return document(current_app)


@blueprint.get("/docs")
@needs("read")
def page() -> Response:
    """Return the page."""
    return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Return a file of the page."""
    if name == "start.js":
        return Response(START, content_type="text/javascript; charset=utf-8")
    return send_from_directory(ASSETS, name if name in NAMES else "nothing")
