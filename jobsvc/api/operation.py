"""Declarations of the API's operations, beside their routes.

Access checks and the OpenAPI document use them, and a request with any other input is rejected.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar

from flask import Flask, current_app, request
from pydantic import BaseModel, ConfigDict

from jobsvc.api.dashboard import is_dashboard
from jobsvc.api.sites import SAFE_METHODS
from jobsvc.api.validation import Query, body, query
from jobsvc.config import Scope

View = TypeVar("View", bound=Callable[..., Any])

_OPERATION = "operation"


@dataclass(frozen=True)
class Reply:
    """A response: its description, the type of its JSON body (else its media type), and its headers."""

    text: str
    body: Any = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """A decorator that declares a view's operation.

    scope: scope of the key that is required; None makes the view public. takes: model of the body. query: model of
    the query parameters. asks: request headers. errors: statuses besides those that every operation may return.
    examples: request bodies by title.
    """

    scope: Scope | None
    replies: Mapping[int, Reply]
    _: KW_ONLY
    takes: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    asks: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    examples: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, view: View) -> View:
        """Declare the operation of this view."""
        setattr(view, _OPERATION, self)
        return view


def operation_of(view: Callable[..., Any] | None) -> Operation | None:
    """Return the operation of a view, or None."""
    found: Operation | None = getattr(view, _OPERATION, None)
    return found


class _Nothing(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _reject_undeclared() -> None:
    """Reject query parameters and a body (other than `{}`) that the view doesn't declare: it would ignore them.

    Aborts and raises as `body` and `query` do.
    """
    if request.endpoint is None or request.blueprint == "ui" or is_dashboard(request.path):
        return
    operation = operation_of(current_app.view_functions.get(request.endpoint))
    if request.query_string and (operation is None or operation.query is None):
        query(Query)
    if request.method not in SAFE_METHODS and operation and operation.takes is None:
        body(_Nothing)


def init_app(app: Flask) -> None:
    """Check the input of every request to a view of the API."""
    app.before_request(_reject_undeclared)
