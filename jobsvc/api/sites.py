"""The source of a request: this machine, a proxy, or a page of this service's own origin."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from jobsvc.config import is_loopback

Origin = tuple[str, str, int | None]
"""Scheme, host in lower case without a trailing dot, port."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing (RFC 9110 §9.2.1)."""

FROM_BROWSER = ("HTTP_SEC_FETCH_SITE", "HTTP_ORIGIN", "HTTP_REFERER")
"""WSGI names of headers; a browser sends at least one of them with a method that is not safe."""

FORWARDED = frozenset(
    f"HTTP_{name}"
    for name in (
        "FORWARDED",
        "VIA",
        "X_FORWARDED_FOR",
        "X_FORWARDED_HOST",
        "X_FORWARDED_PORT",
        "X_FORWARDED_PREFIX",
        "X_FORWARDED_PROTO",
        "X_FORWARDED_SCHEME",
        "X_FORWARDED_SERVER",
        "X_FORWARDED_SSL",
        "X_FORWARDED_BY",
        "X_REAL_IP",
        "X_CLIENT_IP",
        "X_CLUSTER_CLIENT_IP",
        "X_ORIGINAL_FORWARDED_FOR",
        "X_ENVOY_EXTERNAL_ADDRESS",
        "TRUE_CLIENT_IP",
        "CF_CONNECTING_IP",
        "FASTLY_CLIENT_IP",
    )
)
"""WSGI names of the headers in which proxies name themselves or their client."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\\\s]+)(?::([0-9]{0,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_forwarded(environ: Mapping[str, Any]) -> bool:
    """Return True if this WSGI environ has a header of a proxy."""
    return not FORWARDED.isdisjoint(environ)


@lru_cache
def is_local(client: str, host: str) -> bool:
    """Return True if both the client's address and the Host header, with or without a port, are loopback."""
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(client) and is_loopback(found[1])


def own_origin(scheme: str, host: str) -> Origin | None:
    """Return the origin of a service called by this scheme and Host header; None if the header is malformed."""
    found = _HOST.fullmatch(host)
    if found is None:
        return None
    port = int(found[2]) if found[2] else _DEFAULT_PORTS.get(scheme.lower())
    return scheme.lower(), found[1].lower().removesuffix("."), port


def is_from_own_page(environ: Mapping[str, Any], own: Origin | None) -> bool:
    """Return True unless the headers of this WSGI environ show that a page of another origin sent the request.

    A browser sends Origin with every method but GET and HEAD (Fetch Standard); the value `null` hides the origin.
    For older browsers Referer is checked instead. A request with neither, and without Sec-Fetch-Site (W3C Fetch
    Metadata), does not come from a browser.
    """
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none"):
        return False
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None:
        return own is not None and _origin_of(origin) == own
    referer = environ.get("HTTP_REFERER")
    return referer is None or (own is not None and _origin_of(referer) == own)


def _origin_of(url: str) -> Origin | None:
    """Return the origin in an Origin or Referer header; None for `null` and for anything but an HTTP URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return own_origin(parts.scheme, parts.netloc) if parts.scheme in _DEFAULT_PORTS else None
