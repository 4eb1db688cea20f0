"""Unknown names in requests: lists the known ones, and suggests the closest match."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

MAX_SHOWN = 100
"""Maximum number of characters of an unknown name that are compared and quoted."""


def describe_known(kind: str, name: str, known: Iterable[str]) -> str:
    """Return a text with the known names, and the closest match to `name` if any. kind: a noun in the plural."""
    names = [str(one) for one in known]
    if not names:
        return f"no {kind} are known here"
    text = f"known {kind}: {', '.join(names)}"
    folded = {_fold(one): one for one in names}
    close = get_close_matches(_fold(name[:MAX_SHOWN]), folded, n=1)
    return f"{text}; did you mean {folded[close[0]]!a}?" if close else text


def _fold(name: str) -> str:
    """Return the name without case and separators: created_after and createdAfter are the same."""
    return re.sub("[-_ ]", "", name).lower()


def known_fields(schema: dict[str, Any], pointer: str) -> list[str]:
    """Return the names of the fields that the object at this JSON pointer may have, by its JSON Schema."""
    places = [schema]
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        places = [inner for place in places for one in _branches(place, schema) for inner in _step(one, name)]
    found: dict[str, None] = {}
    for place in places:
        for one in _branches(place, schema):
            # A field that may only be null, or empty, exists to be rejected with a reason.
            found |= dict.fromkeys(
                name
                for name, kind in one.get("properties", {}).items()
                if kind.get("type") != "null" and kind.get("maxItems") != 0
            )
    return list(found)


def _branches(place: Any, root: dict[str, Any], seen: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """Yield the schema, and all schemas for the same value that it refers to or is composed of."""
    if not isinstance(place, dict):
        return
    yield place
    reference = place.get("$ref", "")
    if reference.startswith("#/") and reference not in seen:
        target: Any = root
        for part in reference.split("/")[1:]:
            target = target.get(part, {})
        yield from _branches(target, root, seen | {reference})
    for word in ("anyOf", "oneOf", "allOf"):
        for one in place.get(word, ()):
            yield from _branches(one, root, seen)


def _step(place: dict[str, Any], name: str) -> Iterator[Any]:
    """Yield the schemas of the member with this name, or of the item at this index."""
    if name in place.get("properties", {}):
        yield place["properties"][name]
    elif "additionalProperties" in place:
        yield place["additionalProperties"]
    if name.isdecimal():
        if len(place.get("prefixItems", ())) > int(name[:9]):
            yield place["prefixItems"][int(name[:9])]
        yield place.get("items")
