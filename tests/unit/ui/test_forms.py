"""The form of each kind of payload that a handler can declare, and of jobs that are copied into it."""

import json
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter

from jobsvc.api.requests import JobRequest
from jobsvc.ui import forms
from jobsvc.ui.forms import MAX_DEPTH, fields_of, payload_fields


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
    "text": "text",
    "maybe": "text",
    "whole": "number",
    "part": "number",
    "flag": "flag",
    "needed": "flag",
    "unknown_flag": "flag",
    "colour": "choice",
    "maybe_colour": "choice",
    "level": "number",
    "size": "choice",
    "only": "text",
    "tags": "list",
    "tag_set": "list",
    "numbers": "json",
    "mapping": "json",
    "anything": "json",
    "either": "json",
    "pair": "json",
    "at": "time",
    "address/city": "text",
    "address/is_checked": "flag",
    "maybe_address/city": "text",
    "maybe_address/is_checked": "flag",
    "addresses": "json",
}


def fields(declared: Any, payload: dict[str, Any] | None = None) -> dict[str, forms.Field]:
    """The form's fields by the JSON pointers of their values in the payload."""
    schema = TypeAdapter(declared).json_schema()
    return {one.name.removeprefix("/payload").removeprefix("/"): one for one in payload_fields(schema, payload)}


def kinds(declared: Any, payload: dict[str, Any] | None = None) -> dict[str, str]:
    return {name: one.kind for name, one in fields(declared, payload).items()}


def test_each_type_has_its_kind_of_field() -> None:
    shown = fields(Everything)
    assert {name: one.kind for name, one in shown.items()} == KINDS
    # The fields of an object that may be left out can be left out, too.
    assert {name for name, one in shown.items() if one.is_required} == {"text", "needed", "address/city"}


def test_defaults_choices_and_hints_are_shown() -> None:
    shown = fields(Everything)
    assert (shown["whole"].default, shown["numbers"].default, shown["tags"].default) == ("5", "[1, 2]", "")
    assert (shown["colour"].choices, shown["colour"].default) == (("red", "blue"), "red")
    assert (shown["maybe_colour"].choices, shown["maybe_colour"].default) == (("red", "blue"), "")
    assert (shown["flag"].choices, shown["flag"].default) == (("true", "false"), "false")
    assert (shown["unknown_flag"].default, shown["level"].choices) == ("", ())
    assert shown["address/city"].hint == "Where it is."


def test_empty_form_sends_nothing() -> None:
    assert {one.value for one in fields(Everything).values()} == {""}


def test_options_of_a_copy_fill_their_fields() -> None:
    like = {"queue": "low", "retry": {"max": 1, "interval": [5]}, "timeout": 2.5, "tags": ["a,b", "c"]}
    filled = {one.name: one.value for one in fields_of(JobRequest.model_json_schema(), "", like) if one.value}
    assert filled == {
        "/queue": "low", "/retry/max": "1", "/retry/interval": "[5]", "/timeout": "2.5", "/tags": '["a,b", "c"]'
    }  # fmt: skip


@pytest.mark.parametrize("payload", [{"text": "two\nlines", "whole": 2**53 + 1}, {"other": 1}, {"": 1}])
def test_payload_of_a_copy_is_one_box_of_json(payload: dict[str, Any]) -> None:
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
    assert {f"{start}name": "text", f"{start}left/name": "text", f"{start}others": "json"}.items() <= shown.items()
    assert "json" in {kind for name, kind in shown.items() if name.endswith("left")}
    assert max(name.count("/") for name in shown) == MAX_DEPTH


def test_model_that_only_wraps_another_has_its_fields_or_is_json() -> None:
    class Wrapped(BaseModel):
        place: Alias

    assert kinds(Alias) == {"city": "text", "is_checked": "flag"}
    assert kinds(Wrapped) == {"place": "json"}


def test_names_are_escaped_as_pointers_and_shown_as_they_are() -> None:
    class Odd(BaseModel):
        slash: str = Field("", alias="a/b")
        tilde: str = Field("", alias="~1")
        space: str = Field("", alias="x y.z")

    assert {name: one.label for name, one in fields(Odd).items()} == {"a~1b": "a/b", "~01": "~1", "x y.z": "x y.z"}
    assert {one.label for one in fields(A).values()} == {"b.c.d.value", "b.flat"}


def test_times_are_written_by_the_browser() -> None:
    class Meeting(BaseModel):
        at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    field = fields(Meeting)["at"]
    assert (field.kind, field.value, field.default) == ("time", "", "2026-01-01T00:00:00Z")
