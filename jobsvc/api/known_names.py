"""Unknown names in requests: which ones are known, and which one was probably meant."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

MAX_NAME = 100
"""Characters of an unknown name that are compared and quoted."""


def tell_known(kind: str, name: str, known: Iterable[str]) -> str:
    """Say which names of this kind (in the plural) there are, and which is closest to `name` if one is close."""
    names = [str(one) for one in known]
    if not names:
        return f"no {kind} are known here"
    told = f"known {kind}: {', '.join(names)}"
    folded = {_fold(one): one for one in names}
    close = get_close_matches(_fold(name[:MAX_NAME]), folded, n=1)
    return f"{told}; did you mean {folded[close[0]]!a}?" if close else told


def _fold(name: str) -> str:
    """The name without what is often spelled in another way: created_after is createdAfter."""
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
            # What may only be null is there to be refused with a reason.
            found |= dict.fromkeys(
                name for name, kind in one.get("properties", {}).items() if kind.get("type") != "null"
            )
    return list(found)


def _branches(place: Any, root: dict[str, Any], seen: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """The schema and all that it refers to, or is made of, at the same place."""
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
    """The schemas of what stands in this place under a key or an index."""
    if name in place.get("properties", {}):
        yield place["properties"][name]
    elif "additionalProperties" in place:
        yield place["additionalProperties"]
    if name.isdecimal():
        if len(place.get("prefixItems", ())) > int(name[:9]):
            yield place["prefixItems"][int(name[:9])]
        yield place.get("items")
