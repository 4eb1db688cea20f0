"""Conditional requests: reads If-Match (RFC 9110 §13.1.1) as the job versions that a request accepts."""

import re

from flask import request

from jobsvc.jobs import Versions

_TAG = re.compile(r'(W/)?"([!#-~\x80-\xff]*)"')
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t,]*|$)")
_VERSION = re.compile("0|[1-9][0-9]{0,17}")


def expected_versions(suffix: str = "") -> Versions:
    """Return the versions that If-Match accepts; None (any version) without the header and for `*`.

    suffix: the text after the version in the caller's ETags.
    Weak tags match nothing (strong comparison, RFC 9110 §8.8.3.2), and neither does a malformed header.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip(" \t") == "*":
        return None
    texts = [tag.removesuffix(suffix) for tag in _strong_tags(header.strip(" \t,")) if tag.endswith(suffix)]
    return frozenset(int(text) for text in texts if _VERSION.fullmatch(text))


def _strong_tags(header: str) -> list[str]:
    tags: list[str] = []
    at = 0
    while at < len(header):
        tag = _TAG.match(header, at)
        separator = _SEPARATOR.match(header, tag.end()) if tag else None
        if tag is None or separator is None:
            return []
        if tag[1] is None:
            tags.append(tag[2])
        at = separator.end()
    return tags
