"""Strict JSON: accepts and produces only what both RFC 8259 and Postgres' jsonb allow."""

import json
import math
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from jobsvc.errors import JobsvcError, Problem

MAX_DEPTH = 100


class NotJson(JobsvcError):
    """The body is not JSON."""


def parse(raw: bytes) -> Any:
    """Parse JSON strictly. Raises NotJson for invalid UTF-8, NaN, a duplicate key, or too deep nesting."""
    try:
        text = raw.decode("utf-8")
        try:
            return _decoder.decode(text)
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError) or "limit" not in str(error):
                raise
            # An integer with more digits than Python converts. Handled only here, so that other numbers stay fast.
            return _decoder_of_long_numbers.decode(text)
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise NotJson(f"nested more than {MAX_DEPTH} levels deep") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        raise NotJson(str(error)) from None


def _int(text: str) -> int | float:
    """Return the integer; infinity if it has more digits than Python converts, so that `unstorable` finds it."""
    try:
        return int(text)
    except ValueError:
        return math.inf


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its pairs. Raises ValueError for a duplicate key."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!a} appears more than once")
        result[key] = value
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not valid JSON")


def _float(text: str) -> int | float:
    """Return a number without a fraction as an int, as in JSON Schema: 5.0 is 5."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


# Made once: json.loads would make a decoder for each call, 2.3 µs.
_strict = partial(json.JSONDecoder, object_pairs_hook=unique_keys, parse_float=_float, parse_constant=_refuse)
_decoder, _decoder_of_long_numbers = _strict(), _strict(parse_int=_int)
_own_decoder = json.JSONDecoder(object_pairs_hook=unique_keys)


def parse_own(text: str) -> Any:
    """Parse the output of `json.dumps`. Raises ValueError for a duplicate key."""
    return _own_decoder.decode(text)


def canonical(raw: bytes) -> str:
    """Return the same text for all spellings of a JSON value accepted by `parse`: sorted keys, 1 for 1.0 and 10e-1."""
    return json.dumps(json.loads(raw, parse_float=_number), sort_keys=True)


def _number(text: str) -> int | float:
    try:
        exact = Decimal(text)
    except InvalidOperation:  # the exponent is too large
        return float(text)
    return int(exact) if exact == exact.to_integral_value() else float(text)


def unstorable(value: Any, depth: int = 1) -> Iterator[Problem]:
    """Yield the parts of a JSON value that jsonb can't store, each with its JSON pointer."""
    if depth > MAX_DEPTH:
        yield Problem("", f"is nested more than {MAX_DEPTH} levels deep")
    elif isinstance(value, str):
        yield from _in_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem("", "is a number too large")
    elif isinstance(value, dict | list) and not (depth == 1 and _is_harmless(value)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found = _in_text(key, "has a key that ") if isinstance(key, str) else []
            for problem in (*found, *unstorable(item, depth + 1)):
                yield Problem(f"/{escape(str(key))}{problem.pointer}", problem.detail)


def _is_harmless(value: Any, depth: int = 1) -> bool:
    """Fast pre-check: True if jsonb can certainly store this value; False means that `unstorable` must decide."""
    kind = type(value)
    if kind is str:
        return value.isprintable() or (value.isascii() and "\x00" not in value)
    if kind is not dict and kind is not list:
        return value is None or kind is int or kind is bool or (kind is float and math.isfinite(value))
    if depth > MAX_DEPTH or (kind is dict and not _is_harmless("".join(value))):
        return False
    for item in value.values() if kind is dict else value:
        if type(item) is not int and not _is_harmless(item, depth + 1):
            return False
    return True


def _in_text(text: str, prefix: str = "") -> list[Problem]:
    if "\x00" in text:
        return [Problem("", f"{prefix}contains U+0000")]
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return [Problem("", f"{prefix}contains a lone surrogate")]
    return []


def escape(key: str) -> str:
    """Return a key as written in a JSON pointer (RFC 6901 §3), cleaned."""
    return clean(key).replace("~", "~0").replace("/", "~1")


def cut(text: str, limit: int) -> str:
    """Return the text as a plain `str` that Postgres can store, of at most `limit` characters; a cut one ends with "…".

    Calls no method of a subclass of `str`.
    """
    plain = clean(str.__getitem__(text, slice(limit + 1)))
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def clean(text: str) -> str:
    """Return the text with U+FFFD for characters that Postgres can't store: U+0000 and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
