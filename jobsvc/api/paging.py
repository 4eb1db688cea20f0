"""Pages of a list: the cursor to the next one, and the link to it."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from flask import request

CURSOR = "^[A-Za-z0-9_-]{8}[c-f][A-Za-z0-9_-][CGKOSWaeimquy26-][A-Za-z0-9_-]{10}[AQgw]$"
"""Every cursor, and nothing else: the 16 bytes of a UUIDv7 in base64url, its version and variant where they stand."""


def write_cursor(below: UUID) -> str:
    """The cursor that goes on below this id. Clients take it as it is, and needn't know what it holds."""
    return urlsafe_b64encode(below.bytes).rstrip(b"=").decode()


def read_cursor(cursor: Any) -> UUID:
    """The id in a cursor. Raises ValueError for what write_cursor can't have made of a job's id."""
    try:
        below = UUID(bytes=urlsafe_b64decode(f"{cursor}=="))
    except (ValueError, binascii.Error):
        below = UUID(int=0)
    if below.version != 7 or write_cursor(below) != cursor:
        raise ValueError("is no cursor that this list has given")
    return below


def link_to_next(cursor: str) -> str:
    """A Link header (RFC 8288) to the page at `cursor`, the other parameters as they are."""
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
    query = urlencode([*parameters, ("cursor", cursor)], quote_via=quote, safe="")
    return f'<{quote(request.root_path)}{request.path}?{query}>; rel="next"'
