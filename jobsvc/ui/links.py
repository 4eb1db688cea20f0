"""Links within the console and to the API, and the curl command that does what a page or a button does."""

import json
import shlex
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

from flask import request

from jobsvc.api.proxy import quote_prefix
from jobsvc.config import settings

Parameters = Iterable[tuple[str, Any]]


def api(path: str, parameters: Parameters = ()) -> str:
    """Return the path of an endpoint of the API in a URL, below the prefix of a proxy; `path` starts with a slash."""
    query = urlencode([(name, str(value)) for name, value in parameters], quote_via=quote, safe="")
    return f"{quote_prefix(request.root_path)}{quote(path)}{'?' if query else ''}{query}"


def here(parameters: Parameters) -> str:
    """Return the path of this page with these query parameters."""
    return api(request.path, parameters)


def with_query(**changes: Any) -> str:
    """Return the path of this page with query parameters replaced, or removed by None; lists start at their top."""
    kept = [one for one in given() if one[0] not in (*changes, "cursor", "top")]
    return here([*kept, *((name, value) for name, value in changes.items() if value is not None)])


def without(name: str, value: str) -> str:
    """Return the path of this page without one value of a query parameter; a list starts at its top."""
    return here(one for one in given() if one != (name, value) and one[0] not in ("cursor", "top"))


def given() -> list[tuple[str, str]]:
    """Return the query parameters of this page, without empty fields of forms; an empty `error` is one to find."""
    return [(name, value) for name, value in request.args.items(multi=True) if value or name == "error"]


def curl(path: str, parameters: Parameters = (), *, method: str = "GET", body: Any = None) -> str:
    """Return the curl command for a request to the API; with keys it takes the key from the variable KEY."""
    parts = ["curl"] if method == "GET" else ["curl", "-X", method]
    parts.append(shlex.quote(f"{request.scheme}://{request.host}{api(path, parameters)}"))
    if not settings().is_open:
        parts.append('-H "Authorization: Bearer $KEY"')
    if body is not None:
        parts += ["-H", "'Content-Type: application/json'", "-d", shlex.quote(json.dumps(body, ensure_ascii=False))]
    return " ".join(parts)
