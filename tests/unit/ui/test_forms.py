"""The form of each kind of payload that a handler can declare, and of jobs that are copied into it."""

import json
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter

from jobsvc.ui import forms
from jobsvc.ui.forms import MAX_DEPTH, payload_fields


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(Enum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    city: str = Field(description="Where it is.")
    is_checked: bool = False


class Tree(BaseModel):
    name: str
    left: "Tree | None" = None
    others: list["Tree"] = []


class Forest(BaseModel):
    tree: Tree


class D(BaseModel):
    value: int = 1


class C(BaseModel):
    d: D


class B(BaseModel):
    c: C
    flat: int = 0


class A(BaseModel):
    b: B


class Alias(RootModel[Address]):
    pass


class Everything(BaseModel):
    text: str
    maybe: str | None = None
    whole: int = 5
    part: float | None = None
    flag: bool = False
    needed: bool
    unknown_flag: bool | None = None
    colour: Colour = Colour.RED
    maybe_colour: Colour | None = None
    level: Level = Level.LOW
    size: Literal["small", "large"] = "small"
    only: Literal["one"] = "one"
    tags: list[str] = []
    tag_set: set[str] | None = None
    numbers: list[int] = [1, 2]
    mapping: dict[str, int] = {}
    anything: Any = None
    either: int | str = 1
    pair: tuple[int, str] = (1, "a")
    at: datetime | None = None
    address: Address
    maybe_address: Address | None = None
    addresses: list[Address] = []


KINDS = {
    "text": "string",
    "maybe": "string",
    "whole": "number",
    "part": "number",
    "flag": "flag",
    "needed": "flag",
    "unknown_flag": "json",
    "colour": "choice",
    "maybe_colour": "choice",
    "level": "number",
    "size": "choice",
    "only": "string",
    "tags": "list",
    "tag_set": "list",
    "numbers": "json",
    "mapping": "json",
    "anything": "json",
    "either": "json",
    "pair": "json",
    "at": "time",
    "address/city": "string",
    "address/is_checked": "flag",
    "maybe_address/city": "string",
    "maybe_address/is_checked": "flag",
    "addresses": "json",
}


def fields(declared: Any, payload: dict[str, Any] | None = None) -> dict[str, forms.Field]:
    """The form's fields by the JSON pointers of their values in the payload."""
    schema = TypeAdapter(declared).json_schema()
    return {one.name.removeprefix("/payload").removeprefix("/"): one for one in payload_fields(schema, payload)}


def kinds(declared: Any, payload: dict[str, Any] | None = None) -> dict[str, str]:
    return {name: one.kind for name, one in fields(declared, payload).items()}


def sent(shown: dict[str, forms.Field]) -> dict[str, Any]:
    """The values that the script of the page sends if the fields stay as they are."""
    values: dict[str, Any] = {}
    for name, one in shown.items():
        match one.kind, one.value:
            case "flag", value:
                if one.is_required or json.dumps(value) != one.default:
                    values[name] = value
            case _, "":
                pass
            case "number" | "json", str(value):
                values[name] = json.loads(value)
            case "list", str(value):
                values[name] = [part.strip() for part in value.split(",") if part.strip()]
            case "time", value:
                raise AssertionError(f"a browser does not show {value!r} in a field of time")
            case _, value:
                values[name] = "".join(str(value).splitlines())
    return values


def test_each_type_has_its_kind_of_field() -> None:
    shown = fields(Everything)
    assert {name: one.kind for name, one in shown.items()} == KINDS
    assert {name for name, one in shown.items() if one.is_required} == {
        "text", "needed", "address/city", "maybe_address/city"
    }  # fmt: skip


def test_defaults_choices_and_hints_are_shown() -> None:
    shown = fields(Everything)
    assert (shown["whole"].default, shown["numbers"].default, shown["tags"].default) == ("5", "[1, 2]", "")
    assert (shown["colour"].choices, shown["colour"].default) == (("red", "blue"), "red")
    assert (shown["maybe_colour"].choices, shown["maybe_colour"].default) == (("red", "blue"), "")
    assert (shown["flag"].value, shown["flag"].default, shown["needed"].value) == (False, "false", False)
    assert shown["address/city"].hint == "Where it is."
    assert {one.value for one in shown.values()} == {"", False}


def test_empty_form_sends_only_what_is_required() -> None:
    assert sent(fields(Everything)) == {"needed": False}


def test_copy_fills_the_fields_and_sends_the_same() -> None:
    payload = {
        "text": "a, b",
        "maybe": "x",
        "whole": 7,
        "part": 0.5,
        "flag": True,
        "needed": True,
        "unknown_flag": False,
        "colour": "blue",
        "maybe_colour": "red",
        "level": 2,
        "size": "large",
        "tags": ["a", "b c"],
        "numbers": [3],
        "mapping": {"a/b": 1},
        "anything": {"x": [None, "é"]},
        "either": "1",
        "at": "2026-01-01T00:00:00Z",
        "addresses": [{"city": "Rome"}],
    }
    filled = sent(fields(Everything, {**payload, "address": {"city": "Oslo", "is_checked": True}}))
    assert filled == {**payload, "address/city": "Oslo", "address/is_checked": True}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "two\nlines"),
        ("text", "old\rmac"),
        ("text", ""),
        ("maybe", {"was": "another type"}),
        ("whole", "7"),
        ("whole", True),
        ("flag", "yes"),
        ("flag", 1),
        ("colour", "green"),
        ("tags", ["a,b"]),
        ("tags", [" a"]),
        ("tags", [""]),
        ("tags", ["a", ""]),
        ("tags", [1]),
        ("tags", "a"),
        ("tag_set", []),
        ("at", "2026-01-01T00:00:00+02:00"),
        ("address", "another type"),
        ("address", ["city"]),
        ("maybe_address", {"city": "Rome", "zip": "not declared"}),
    ],
)
def test_value_that_its_field_would_change_is_shown_as_json(name: str, value: Any) -> None:
    shown = fields(Everything, {name: value})
    assert shown[name].kind == "json"
    assert sent(shown)[name] == value


def test_text_with_several_lines_that_is_the_default_is_left_to_the_service() -> None:
    class Text(BaseModel):
        text: str = "two\nlines"

    assert sent(fields(Text, {"text": "two\nlines"})) == {}


@pytest.mark.parametrize("payload", [{"other": 1}, {"text": "a", "other": None}, {"": 1}])
def test_payload_with_other_keys_is_one_box_of_json(payload: dict[str, Any]) -> None:
    [(name, box)] = fields(Everything, payload).items()
    assert (name, box.kind, box.label) == ("", "json", "payload")
    assert json.loads(str(box.value)) == payload


@pytest.mark.parametrize("declared", [dict[str, Any], dict[str, int], Any, list[int], int, Address | D])
def test_payload_that_is_not_a_model_is_one_box_of_json(declared: Any) -> None:
    [(name, box)] = fields(declared).items()
    assert (name, box.kind, box.value, box.default) == ("", "json", "", "{}")


def test_model_without_fields_is_one_box_of_json() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    assert kinds(Open) == {"": "json"}
    assert json.loads(str(fields(Open, {"a": 1})[""].value)) == {"a": 1}


def test_only_so_deep_objects_become_fields() -> None:
    assert MAX_DEPTH == 3
    assert kinds(A) == {"b/c/d/value": "number", "b/flat": "number"}

    class Z(BaseModel):
        a: A

    assert kinds(Z) == {"a/b/c/d": "json", "a/b/flat": "number"}


@pytest.mark.parametrize(("declared", "start"), [(Tree, ""), (Forest, "tree/")])
def test_recursive_model_ends(declared: type[BaseModel], start: str) -> None:
    shown = kinds(declared)
    assert {f"{start}name": "string", f"{start}left/name": "string", f"{start}others": "json"}.items() <= shown.items()
    assert "json" in {kind for name, kind in shown.items() if name.endswith("left")}
    assert max(name.count("/") for name in shown) == MAX_DEPTH


def test_model_that_only_wraps_another_has_its_fields_or_is_json() -> None:
    class Wrapped(BaseModel):
        place: Alias

    assert kinds(Alias) == {"city": "string", "is_checked": "flag"}
    assert kinds(Wrapped) == {"place": "json"}


def test_names_are_escaped_as_pointers_and_shown_as_they_are() -> None:
    class Odd(BaseModel):
        slash: str = Field("", alias="a/b")
        tilde: str = Field("", alias="~1")
        space: str = Field("", alias="x y.z")

    shown = fields(Odd, {"a/b": "1", "~1": "2"})
    assert {name: (one.label, one.value) for name, one in shown.items()} == {
        "a~1b": ("a/b", "1"), "~01": ("~1", "2"), "x y.z": ("x y.z", "")
    }  # fmt: skip
    assert {one.label for one in fields(A).values()} == {"b.c.d.value", "b.flat"}


def test_times_are_written_by_the_browser() -> None:
    class Meeting(BaseModel):
        at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    field = fields(Meeting)["at"]
    assert (field.kind, field.value, field.default) == ("time", "", "2026-01-01T00:00:00Z")
