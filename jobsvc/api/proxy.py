"""JOBSVC_TRUST_PROXY: takes scheme, host, path prefix and client address from the headers of a proxy."""

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from jobsvc.config import settings

_WELL_FORMED = {
    "HTTP_X_FORWARDED_PROTO": re.compile("https?"),
    "HTTP_X_FORWARDED_HOST": re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?"),
    "HTTP_X_FORWARDED_PREFIX": re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*"),
    "HTTP_X_FORWARDED_FOR": re.compile(r"[0-9A-Za-z.:%\[\]]+"),
}
"""Format of the last value of each header; any other value is treated as if the header were missing."""


def quote_prefix(root_path: str) -> str:
    """Return the path prefix of the service as it stands in a URL; what is already percent-encoded stays."""
    return quote(root_path, safe="/~!$&'()*+,;=:@%")


def init_app(app: Flask) -> None:
    """Apply the headers of the last proxy to the WSGI environ, if JOBSVC_TRUST_PROXY is set."""
    if settings().JOBSVC_TRUST_PROXY:
        fixed = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_port=0, x_prefix=1)
        app.wsgi_app = _WellFormed(fixed)  # type: ignore[method-assign]


class _WellFormed:
    """WSGI middleware that keeps the last value of each header if it is well-formed, else drops the header."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        for name, pattern in _WELL_FORMED.items():
            value = environ.pop(name, "").rpartition(",")[2].strip()
            if name == "HTTP_X_FORWARDED_PROTO":
                value = value.lower()
            if name == "HTTP_X_FORWARDED_PREFIX":
                value = value.rstrip("/")
            if value and pattern.fullmatch(value):
                environ[name] = value
        return self._app(environ, start_response)
