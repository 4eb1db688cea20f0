"""JSON as we take it in and hand it on: only what both RFC 8259 and Postgres' jsonb can hold."""

import json
import math
from typing import Any

from jobsvc.errors import JobsvcError, Problem

MAX_DEPTH = 100


class NotJson(JobsvcError):
    """The body is not JSON."""


def parse(raw: bytes) -> Any:
    """Read JSON strictly. Raises NotJson for bad UTF-8, NaN, a duplicate key, or nesting without end."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise NotJson(f"nested more than {MAX_DEPTH} levels deep") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise NotJson(str(error).partition(";")[0]) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!a} is there twice")
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def unstorable(value: Any, pointer: str = "", depth: int = 1) -> list[Problem]:
    """What jsonb can't hold of a JSON value, each with the pointer to it; an empty list if it can hold it all."""
    if depth > MAX_DEPTH:
        return [Problem(pointer, f"is nested more than {MAX_DEPTH} levels deep")]
    if isinstance(value, str):
        return [Problem(pointer, detail) for detail in _text(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return [Problem(pointer, "is a number too large")]
    problems = []
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{pointer}/{escape(key)}"
            problems += [Problem(clean(here), f"its key {detail}") for detail in _text(key)]
            problems += unstorable(item, clean(here), depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            problems += unstorable(item, f"{pointer}/{index}", depth + 1)
    return problems


def _text(text: str) -> list[str]:
    if "\x00" in text:
        return ["holds U+0000"]
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return ["holds a lone surrogate"]
    return []


def escape(key: str) -> str:
    """A key as it stands in a JSON pointer (RFC 6901 §3)."""
    return key.replace("~", "~0").replace("/", "~1")


def clean(text: str) -> str:
    """The text without what Postgres can't hold: U+FFFD in the place of U+0000 and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
