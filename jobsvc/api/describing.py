"""What a view takes and answers, declared beside its route; the OpenAPI document is made of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Reply:
    """An answer: when it is given, the type of its JSON or, for another body, its media type, and its headers."""

    text: str
    body: Any = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """An operation. `takes` is the model of the body, `query` that of the query parameters, `asks` names headers."""

    replies: Mapping[int, Reply]
    takes: type[BaseModel] | None
    query: type[BaseModel] | None
    asks: tuple[str, ...]
    errors: tuple[int, ...]


def describe(
    replies: Mapping[int, Reply],
    *,
    takes: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    asks: tuple[str, ...] = (),
    errors: tuple[int, ...] = (),
) -> Callable[[View], View]:
    """Declare what a view takes and answers; `errors` are the statuses that aren't every view's."""

    def declare(view: View) -> View:
        view.__dict__["description"] = Description(replies, takes, query, asks, errors)
        return view

    return declare


def description_of(view: Callable[..., Any]) -> Description | None:
    """What was declared of a view."""
    found: Description | None = getattr(view, "description", None)
    return found
