"""Form fields for a JSON Schema: what it describes simply becomes a field, all else a box of JSON."""

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from jobsvc.strict_json import escape

MAX_DEPTH = 3
"""Depth of nested objects that become fields; deeper ones are a box of JSON."""

Kind = Literal["text", "number", "choice", "flag", "time", "list", "json"]


class Field(NamedTuple):
    """A field of a form. `name`: the JSON pointer of its value in the body of the request."""

    name: str
    label: str
    kind: Kind
    hint: str
    value: str
    default: str
    choices: tuple[str, ...]
    is_required: bool


def payload_fields(schema: dict[str, Any], payload: dict[str, Any] | None) -> list[Field]:
    """Return the fields for a payload of this schema; one box of JSON for a payload that is given."""
    schema = {**schema, **_resolve(schema, schema)}
    fields = list(fields_of(schema, "/payload", {})) if payload is None else []
    value = json.dumps(payload, indent=2, ensure_ascii=False) if payload else ""
    return fields or [Field("/payload", "payload", "json", "A JSON object.", value, "{}", (), is_required=False)]


def fields_of(schema: dict[str, Any], pointer: str, given: Any, root: Any = None, depth: int = 0) -> Iterator[Field]:
    """Yield a field for each value in an object of this schema, filled with those in `given`."""
    root = root or schema
    required = schema.get("required", ())
    for name, declared in schema.get("properties", {}).items():
        place = _resolve(declared, root)
        at = f"{pointer}/{escape(name)}"
        value = given.get(name) if isinstance(given, dict) else None
        if place.get("properties") and depth < MAX_DEPTH:
            # The fields of an object that may be left out can be left out, too.
            inner = place if name in required else {**place, "required": ()}
            yield from fields_of(inner, at, value, root, depth + 1)
        else:
            yield _field(at, {**place, **declared}, value, name in required)


def _resolve(declared: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that is declared elsewhere in the document, or may also be null."""
    options = [one for one in declared.get("anyOf", ()) if one.get("type") != "null"]
    if len(options) == 1:
        return _resolve(options[0], root)
    name = declared.get("$ref", "").removeprefix("#/$defs/")
    found: dict[str, Any] = root.get("$defs", {}).get(name, declared)
    return found


def _field(pointer: str, schema: dict[str, Any], value: Any, is_required: bool) -> Field:
    kind = _kind(schema)
    return Field(
        name=pointer,
        label=pointer.removeprefix("/payload").lstrip("/").replace("/", ".").replace("~1", "/").replace("~0", "~"),
        kind=kind,
        hint=schema.get("description", ""),
        value=_write(value, kind),
        default=_write(schema.get("default") or None if kind == "list" else schema.get("default"), kind),
        choices={"flag": ("true", "false"), "choice": tuple(schema.get("enum", ()))}.get(kind, ()),
        is_required=is_required,
    )


def _write(value: Any, kind: Kind) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) and kind != "json" else json.dumps(value, ensure_ascii=False)


def _kind(schema: dict[str, Any]) -> Kind:
    match schema:
        case {"enum": [*values]} if all(isinstance(value, str) for value in values):
            return "choice"
        case {"type": "boolean"}:
            return "flag"
        case {"type": "integer" | "number"}:
            return "number"
        case {"type": "string", "format": "date-time"}:
            return "time"
        case {"type": "string"}:
            return "text"
        case {"type": "array", "items": {"type": "string"}}:
            return "list"
        case _:
            return "json"
