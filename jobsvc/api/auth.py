"""Who may call: API keys with scopes, or, without any keys, whoever calls from this machine."""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from flask import Flask, Response, current_app, g, request

from jobsvc.api.dashboard import is_dashboard
from jobsvc.api.problems import problem
from jobsvc.config import ApiKey, Scope, is_loopback, settings

View = TypeVar("View", bound=Callable[..., Any])

_SAFE = ("GET", "HEAD", "OPTIONS")
_PAGES = ("/docs", "/openapi.json")
_LADDER: tuple[Scope, ...] = ("read", "write", "admin")


def needs(scope: Scope | None) -> Callable[[View], View]:
    """Declare the scope that a view needs; None opens it to everybody. GET needs `read` by itself."""

    def declare(view: View) -> View:
        view.__dict__["scope"] = scope
        return view

    return declare


def _scope_needed() -> Scope | None:
    if is_dashboard(request.path):
        return "admin"
    view = current_app.view_functions.get(request.endpoint or "")
    return scope_of(view, request.method) if view else "read"


def scope_of(view: Callable[..., Any], method: str) -> Scope | None:
    """The scope that a view needs; None if it is open to everybody."""
    declared: Scope | None = getattr(view, "scope", "read" if method in _SAFE else "admin")
    return declared


def _key_sent() -> str | None:
    """The key of the request: a bearer token (RFC 6750 §2.1), X-API-Key, or a Basic password (RFC 7617)."""
    sent = request.authorization
    if sent is not None and sent.type == "bearer" and sent.token:
        return sent.token
    if sent is not None and sent.type == "basic" and sent.password:
        return sent.password
    return request.headers.get("X-API-Key")


def _owner(key: str) -> ApiKey | None:
    """Whose key this is. Every key is compared, each in constant time."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
    found = None
    for known in settings().JOBSVC_API_KEYS:
        if hmac.compare_digest(digest, _digest(known.secret)):
            found = known
    return found


def _digest(secret: str) -> str:
    marked = secret.startswith("sha256:")
    return secret.removeprefix("sha256:") if marked else hashlib.sha256(secret.encode()).hexdigest()


def _check_site() -> Response | None:
    """Refuse what a page of another site makes a browser send.

    That is every request to the dashboard, which changes things on GET too; and every request that
    could change something, without keys or with a password, which a browser adds by itself.
    `Sec-Fetch-Site` tells in every browser of today (W3C Fetch Metadata); Origin and Referer stand in.
    """
    needs_nothing = settings().is_open or (request.authorization is not None and request.authorization.type == "basic")
    if not is_dashboard(request.path) and (not needs_nothing or request.method in _SAFE):
        return None
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        is_ours = site in ("same-origin", "none")
    else:
        source = request.headers.get("Origin") or request.headers.get("Referer")
        is_ours = source is None or f"{source}/".startswith(request.host_url)
    return None if is_ours else problem(403, "Forbidden", "A page of another site sent this request.")


def _check() -> Response | None:
    needed = _scope_needed()
    if needed is None:
        return None
    if settings().is_open:
        return _check_is_local()
    key = _key_sent()
    owner = _owner(key) if key else None
    if owner is None:
        is_a_page = is_dashboard(request.path) or request.path in _PAGES
        challenge = 'Basic realm="jobsvc", charset="UTF-8"' if is_a_page else "Bearer"
        detail = "This key is not known." if key else "Send a key: Authorization: Bearer …, or X-API-Key: …"
        return problem(401, "Unauthorized", detail, headers={"WWW-Authenticate": challenge})
    if _LADDER.index(owner.scope) < _LADDER.index(needed):
        return problem(403, "Forbidden", f"This needs a key of the scope {needed}; the key given has {owner.scope}.")
    g.caller, g.scope = owner.name, owner.scope
    return None


def _check_is_local() -> Response | None:
    """Without keys, serve this machine only: also when a server was told to listen elsewhere, or a web page
    makes a browser here call us under a name of its own (DNS rebinding)."""
    if settings().JOBSVC_ALLOW_ANONYMOUS or _is_local(request.remote_addr or "", request.host):
        return None
    return problem(
        403, "Forbidden", "Without JOBSVC_API_KEYS, requests are served from and to this machine's loopback only."
    )


@lru_cache
def _is_local(client: str, host: str) -> bool:
    """Whether a request from this address is for this Host, with or without its port, on loopback both."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_loopback(client) and is_loopback(name.strip("[]"))


def surely_may_write(environ: Mapping[str, Any]) -> bool:
    """Whether what is checked here lets the request of this WSGI environment post jobs. If not, ask `_check` why."""
    if settings().is_open:
        return not any(name in environ for name in _SAYS_FROM_WHERE) and bool(
            settings().JOBSVC_ALLOW_ANONYMOUS or _is_local(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_HOST", ""))
        )
    kind, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    owner = _owner(token) if kind == "Bearer" else None
    return owner is not None and owner.scope != "read"


_SAYS_FROM_WHERE = ("HTTP_SEC_FETCH_SITE", "HTTP_ORIGIN", "HTTP_REFERER")


def init_app(app: Flask) -> None:
    """Check every request of this app before its view."""
    app.before_request(_check_site)
    app.before_request(_check)
