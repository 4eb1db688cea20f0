"""A handler's result, as JSON that Postgres can hold."""

import json
from typing import Any

from jobsvc.execution.exceptions import type_name
from jobsvc.strict_json import parse_own, unstorable

MAX_RESULT = 16 * 1024 * 1024
"""Bytes of a result as JSON in UTF-8: each GET of its job returns it, and each process that handles it buffers it."""

_MOST_ESCAPED = 3
"""Largest ratio between the length of a character's escape (\\uXXXX) and its bytes in UTF-8."""


class UnserializableResult(Exception):
    """The handler's result can't be represented in JSON or stored in Postgres."""


def storable(result: Any) -> Any:
    """Return the result converted to JSON's own types.

    Raises UnserializableResult for other types, NaN, two keys that are the same in JSON (1 and "1"), a circular or too
    deep value, text that Postgres can't store, more than MAX_RESULT bytes, or an object that raises while it is read.
    """
    if result is None:
        return None
    try:
        text = json.dumps(result, allow_nan=False)
        if len(text) > MAX_RESULT * _MOST_ESCAPED:
            raise UnserializableResult(_TOO_LARGE)
        plain = parse_own(text)
        if len(text) > MAX_RESULT and len(json.dumps(plain, ensure_ascii=False).encode(errors="replace")) > MAX_RESULT:
            raise UnserializableResult(_TOO_LARGE)
    except UnserializableResult:
        raise
    except BaseException as error:
        raise UnserializableResult(f"the result is not JSON: {_reason(error)}") from error
    for problem in unstorable(plain):
        raise UnserializableResult(f"the result{problem.pointer} {problem.detail}")
    return plain


_TOO_LARGE = f"the result takes more than {MAX_RESULT} bytes of JSON"


def _reason(error: BaseException) -> str:
    """Return the message of `json`'s own errors; of what the result's methods raised, only the type."""
    return str(error) if type(error) in (TypeError, ValueError, RecursionError) else type_name(error)
