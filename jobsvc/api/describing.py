"""Declarations of a view's input and responses, beside its route; the OpenAPI document is built from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

View = TypeVar("View", bound=Callable[..., Any])

_DESCRIPTION = "description"


@dataclass(frozen=True)
class Reply:
    """A response: its description, the type of its JSON body (else its media type), and its headers."""

    text: str
    body: Any = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Description:
    """An operation. `takes`: model of the body; `query`: model of the query parameters; `asks`: request headers.

    examples: request bodies by title.
    """

    replies: Mapping[int, Reply]
    takes: type[BaseModel] | None
    query: type[BaseModel] | None
    asks: tuple[str, ...]
    errors: tuple[int, ...]
    examples: Mapping[str, Any]


def describe(
    replies: Mapping[int, Reply],
    *,
    takes: type[BaseModel] | None = None,
    query: type[BaseModel] | None = None,
    asks: tuple[str, ...] = (),
    errors: tuple[int, ...] = (),
    examples: Mapping[str, Any] | None = None,
) -> Callable[[View], View]:
    """Declare a view's input and responses; `errors`: statuses besides those that every view may return."""

    def declare(view: View) -> View:
        setattr(view, _DESCRIPTION, Description(replies, takes, query, asks, errors, examples or {}))
        return view

    return declare


def description_of(view: Callable[..., Any]) -> Description | None:
    """Return the declaration of a view, or None."""
    found: Description | None = getattr(view, _DESCRIPTION, None)
    return found
