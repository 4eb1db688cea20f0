"""Declarations of a view's input and responses, beside its route.

The OpenAPI document is built from them, and a request with any other input is rejected.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask, current_app, request
from pydantic import BaseModel, ConfigDict

from jobsvc.api.dashboard import is_dashboard
from jobsvc.api.sites import SAFE_METHODS
from jobsvc.api.validation import Query, body, query

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


class _Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _reject_undeclared() -> None:
    """Reject query parameters and a body (other than `{}`) that the view doesn't declare: it would ignore them.

    Aborts and raises as `body` and `query` do.
    """
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or is_dashboard(request.path):
        return
    description = description_of(view)
    if description is None or description.query is None:
        query(Query)
    if request.method not in SAFE_METHODS and description is not None and description.takes is None:
        body(_Nothing)


def init_app(app: Flask) -> None:
    """Check the input of every request to a view of the API."""
    app.before_request(_reject_undeclared)
