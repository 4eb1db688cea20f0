"""Pages of a list: the cursor of the next page, and the link to it."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from flask import request

CURSOR = "^[A-Za-z0-9_-]{8}[c-f][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$"
"""Matches exactly the valid cursors: the 16 bytes of a UUIDv7 in base64url, with its fixed version and variant bits."""


def write_cursor(below: UUID) -> str:
    """Return the cursor of the page with the ids below this one. It is opaque to clients."""
    return urlsafe_b64encode(below.bytes).rstrip(b"=").decode()


def read_cursor(cursor: Any) -> UUID:
    """Return the id in a cursor. Raises ValueError for text that write_cursor can't have made from a job's id."""
    try:
        below = UUID(bytes=urlsafe_b64decode(f"{cursor}=="))
    except (ValueError, binascii.Error):
        below = UUID(int=0)
    if below.version != 7 or write_cursor(below) != cursor:
        raise ValueError("is no cursor that this list has given")
    return below


def link_to_next(cursor: str) -> str:
    """Return a Link header (RFC 8288) to the page at `cursor`, with the other query parameters unchanged."""
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
    query = urlencode([*parameters, ("cursor", cursor)], quote_via=quote, safe="")
    return f'<{quote(request.root_path)}{request.path}?{query}>; rel="next"'
