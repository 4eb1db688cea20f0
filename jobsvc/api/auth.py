"""Access control: API keys with scopes; without any keys, only requests from this machine are allowed."""

import hashlib
import hmac
import logging
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, current_app, g, request

from jobsvc.api.clients import MAX_WRONG_KEYS, WINDOW_SECONDS, WrongKeys, client_address, network_of
from jobsvc.api.dashboard import is_dashboard
from jobsvc.api.operation import operation_of
from jobsvc.api.problems import problem
from jobsvc.api.scopes import includes
from jobsvc.api.sites import FROM_BROWSER, SAFE_METHODS, is_forwarded, is_from_own_page, is_local, own_origin
from jobsvc.config import ApiKey, Scope, settings

logger = logging.getLogger("jobsvc.api")

CHALLENGES = ('Basic realm="jobsvc", charset="UTF-8"', "Bearer")
"""The WWW-Authenticate challenges of every 401 response (RFC 9110 §11.6.1)."""


def _scope_needed() -> Scope | None:
    """Return the scope that the request requires, None if its view is public."""
    if is_dashboard(request.path):
        return "admin"
    view = current_app.view_functions.get(request.endpoint or "")
    operation = operation_of(view)
    if operation is None:
        return "read" if view is None or request.method in SAFE_METHODS else "admin"
    return operation.scope


def _key_sent() -> tuple[str, bool]:
    """Return the request's key ("" if none), and True if a page of another site can make a browser send it.

    Accepts a bearer token (RFC 6750 §2.1), X-API-Key, or a Basic password (RFC 7617), which browsers add by themselves.
    """
    sent = request.authorization
    if sent is not None and sent.type == "bearer" and sent.token:
        return sent.token, False
    if sent is not None and sent.type == "basic" and sent.password:
        return sent.password, True
    return request.headers.get("X-API-Key", ""), False


def _owner(key: str) -> ApiKey | None:
    """Return the configured key that matches, or None. Compares with every key, each in constant time."""
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
    """Return a 403 for a state-changing request sent by a page of another site, else None.

    A page can make a browser send such requests without a key, or with the Basic password that the browser remembers.
    Bearer and X-API-Key keys need no check: sending them requires a CORS permission that no response grants.
    """
    if request.method in SAFE_METHODS or not (settings().is_open or _key_sent()[1]):
        return None
    if is_from_own_page(request.environ, own_origin(request.scheme, request.host)):
        return None
    return problem(403, "Forbidden", "A page of another site sent this request.")


def _check() -> Response | None:
    needed = _scope_needed()
    if needed is None:
        return None
    if settings().is_open:
        refusal = _refusal_without_keys(request.environ, request.host)
        return problem(403, "Forbidden", refusal) if refusal else None
    key, _ = _key_sent()
    owner = _owner(key) if key else None
    if owner is None:
        return _refuse_key() if key else _unauthorized("Send a key: Authorization: Bearer …, or X-API-Key: …")
    if not includes(owner.scope, needed):
        return problem(
            403, "Forbidden", f"This requires a key with the scope {needed}; the given key has {owner.scope}."
        )
    g.caller, g.scope = owner.name, owner.scope
    return None


def _refuse_key() -> Response:
    """Log a wrong key; return a 401, or a 429 after too many of them. Neither contains any part of the key."""
    address = client_address(request.environ)
    wrong_keys: WrongKeys = current_app.extensions["wrong_keys"]
    seconds = wrong_keys.count(network_of(address))
    route = request.url_rule.rule if request.url_rule else "an unknown route"
    logger.warning("access: wrong key from %s, %s %s", address or "an unknown address", request.method, route)
    if seconds is None:
        return _unauthorized("This key is unknown.")
    detail = f"More than {MAX_WRONG_KEYS} wrong keys came from this address within {WINDOW_SECONDS} s."
    return problem(429, "Too Many Requests", detail, headers={"Retry-After": str(seconds)})


def _unauthorized(detail: str) -> Response:
    """Return a 401 with both challenges; Basic makes a browser ask for the key."""
    response = problem(401, "Unauthorized", detail)
    for challenge in CHALLENGES:
        response.headers.add("WWW-Authenticate", challenge)
    return response


def _refusal_without_keys(environ: Mapping[str, Any], host: str) -> str | None:
    """Return why a request is refused if there are no keys: it is not from this machine. None if it is served.

    This holds even if the server listens on a public address, if a proxy on this machine forwards requests of others,
    or if a web page makes a local browser call the service by a host name of its own (DNS rebinding).
    """
    if settings().JOBSVC_ALLOW_ANONYMOUS:
        return None
    if is_forwarded(environ):
        return (
            "A proxy forwarded this request, and without keys the service answers to its own machine only: "
            "set JOBSVC_API_KEYS, or JOBSVC_ALLOW_ANONYMOUS=1 to let anyone in."
        )
    if is_local(environ.get("REMOTE_ADDR") or "", host):
        return None
    return "Without JOBSVC_API_KEYS, requests are served from and to this machine's loopback only."


def surely_may_write(environ: Mapping[str, Any]) -> bool:
    """Return True if the request may certainly post jobs (fast pre-check). False: the full checks must decide."""
    if settings().is_open:
        is_from_browser = any(name in environ for name in FROM_BROWSER)
        return not is_from_browser and _refusal_without_keys(environ, environ.get("HTTP_HOST", "")) is None
    kind, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    owner = _owner(token) if kind == "Bearer" else None
    return owner is not None and owner.scope != "read"


def init_app(app: Flask) -> None:
    """Run the access checks before every view of this app."""
    app.extensions["wrong_keys"] = WrongKeys()
    app.before_request(_check_site)
    app.before_request(_check)
