"""Converts an RSGI request into a WSGI environ (PEP 3333)."""

import io
import sys
from functools import lru_cache
from typing import Any

UNREADABLE = "\xff"
"""Replaces header values that are not ASCII. RSGI leaves these out, but a missing header has a meaning of its own."""


def environ_of(scope: Any) -> dict[str, Any]:
    """Return the WSGI environ of this request, without its body."""
    server, _, port = scope.server.rpartition(":")
    headers = scope.headers
    environ: dict[str, Any] = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "Granian",
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": port,
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode("utf-8", "surrogatepass").decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    number = 0
    for name, value in headers.items():
        key = _key(name)
        if key is None:
            continue
        if key not in environ:
            environ[key] = value
            number += 1
        elif key not in _ALONE:
            environ[key] += (";" if key == "HTTP_COOKIE" else ",") + value
    if number != len(headers):
        for name in headers.keys():  # noqa: SIM118  # granian's own type
            key = _key(name)
            if key is not None and key not in environ:
                environ[key] = UNREADABLE
    if "HTTP_HOST" not in environ:
        environ["HTTP_HOST"] = scope.authority or ""
    return environ


_ALONE = ("CONTENT_TYPE", "CONTENT_LENGTH")
"""Headers of which only the first value counts."""


@lru_cache(maxsize=1024)
def _key(name: str) -> str | None:
    """Return the environ key of a header; None for a name with an underscore, which could pose as another."""
    if "_" in name:
        return None
    key = name.upper().replace("-", "_")
    return key if key in _ALONE else f"HTTP_{key}"


def add_body(environ: dict[str, Any], body: bytes) -> None:
    """Add the request's body to its environ."""
    environ["wsgi.input"] = io.BytesIO(body)
