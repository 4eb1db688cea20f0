"""Headers of every response: restrictions for browsers, and caching."""

from urllib.parse import urlsplit, urlunsplit

from flask import Flask, Response

_PROTECTION = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]

# A Referrer-Policy of no-referrer would make a browser send `Origin: null` with our own pages' forms.

# For responses other than HTML pages: nothing may run or be framed.
_NO_PAGE = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

JSON_HEADERS = [("Cache-Control", "no-store"), *_PROTECTION, _NO_PAGE]
"""Headers of a JSON response that does not go through Flask."""


def init_app(app: Flask) -> None:
    """Add the headers to every response of this app; those that a view has set are kept."""
    app.after_request(_protect)
    app.after_request(_shorten_redirect)


def _shorten_redirect(response: Response) -> Response:
    """Reduce a redirect's Location to path and query: the client may use another scheme and host.

    Werkzeug's redirects to a path with a trailing slash contain both, as the WSGI server sees them.
    """
    location = response.headers.get("Location")
    if response.status_code in (301, 302, 307, 308) and location:
        target = urlsplit(location)
        response.headers["Location"] = urlunsplit(("", "", target.path, target.query, ""))
        response.data = b""
        response.content_type = "text/plain; charset=utf-8"
    return response


def _protect(response: Response) -> Response:
    given = {name.lower() for name, _ in response.headers}
    caching = ("Cache-Control", "private, no-cache" if "etag" in given else "no-store")
    ours = (*_PROTECTION, _NO_PAGE, caching)
    response.headers.extend((name, value) for name, value in ours if name.lower() not in given)
    return response
