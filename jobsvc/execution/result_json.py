"""A handler's result, as JSON that Postgres can hold."""

import json
from typing import Any

from jobsvc.execution.exceptions import type_name
from jobsvc.strict_json import parse_own, unstorable

MAX_RESULT = 16 * 1024 * 1024
"""Bytes of a result as JSON in UTF-8: it is part of each GET of its job, and held in memory by all that handle it."""

_MOST_ESCAPED = 3
"""No character takes more than so many times its bytes in UTF-8 once it is written as an escape (\\uXXXX)."""


class UnserializableResult(Exception):
    """The handler returned what JSON or Postgres can't hold."""


def storable(result: Any) -> Any:
    """Return the result as JSON's own types.

    Raises UnserializableResult for what has none: other types, NaN, two keys that are the same in JSON (1 and "1"),
    a circular or deep value, text that Postgres can't hold, more than MAX_RESULT bytes, or an object that raises
    whatever it likes while it is read.
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
    """What was wrong: in the words of `json`, or the type alone of what the result's own methods raised."""
    return str(error) if type(error) in (TypeError, ValueError, RecursionError) else type_name(error)
