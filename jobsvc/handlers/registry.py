"""The registry of handlers, to which `@handler` adds."""

import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import to_json

from jobsvc.errors import HandlerError
from jobsvc.handlers.context import Context, Discard
from jobsvc.handlers.retry_policy import DEFAULT_RETRY, DEFAULT_TIMEOUT, Duration, RetryPolicy
from jobsvc.printable import describe_exception
from jobsvc.processes.forks import Boundary

DELIVERY = "WEBHOOK"
"""The type of the jobs that deliver webhooks; the service creates them itself."""

MAX_PROBLEMS = 20
"""Maximum number of problems in the message of InvalidPayload."""

_boundary = Boundary()


class InvalidPayload(Discard):
    """The stored payload doesn't fit the handler's schema: the job was enqueued in SQL, or by another version."""


@dataclass(frozen=True)
class Handler:
    """A registered handler and its defaults. `queue` is None if it names none."""

    name: str
    function: Callable[..., Any]
    payload: TypeAdapter[Any]
    takes_context: bool
    queue: str | None
    timeout: float
    retry: RetryPolicy
    isolated: bool

    @property
    def description(self) -> str | None:
        """The function's docstring."""
        return inspect.getdoc(self.function)

    @cached_property
    def _fixed_intervals(self) -> list[float]:
        return self.retry.intervals()

    def retry_intervals(self) -> list[float]:
        """Return the retry intervals (seconds) of a new job that gives none; a backoff draws them for each call."""
        return self._fixed_intervals if self.retry.backoff is None else self.retry.intervals()

    def payload_schema(self) -> dict[str, Any]:
        """Return the payload's JSON Schema (2020-12); any object, if the annotation has no schema."""
        try:
            return self.payload.json_schema()
        except PydanticInvalidForJsonSchema:
            return {"type": "object"}

    def parse(self, payload: dict[str, Any]) -> Any:
        """Return the payload as the annotated type. Raises pydantic's ValidationError."""
        # Through JSON, where strict means JSON's types: a date may be given as text, a number may not.
        return self.payload.validate_json(to_json(payload), strict=True)

    def __call__(self, payload: dict[str, Any], context: Context) -> Any:
        """Run the handler; returns and raises what it does. Raises InvalidPayload."""
        with _boundary:
            parsed = self._parse_stored(payload)
            return self.function(parsed, context) if self.takes_context else self.function(parsed)

    def _parse_stored(self, payload: dict[str, Any]) -> Any:
        try:
            return self.parse(payload)
        except ValidationError as error:
            raise InvalidPayload(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    """Return pydantic's problems with their JSON pointers, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_PROBLEMS]
    return "; ".join(f"{''.join(f'/{part}' for part in one['loc'])}: {one['msg']}" for one in found)


F = TypeVar("F", bound=Callable[..., Any])

_handlers: dict[str, Handler] = {}


def handler(
    name: str,
    *,
    queue: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    retry: dict[str, Any] | RetryPolicy = DEFAULT_RETRY,
    isolated: bool = False,
) -> Callable[[F], F]:
    """Register a function as the handler of the job type `name`.

    The function takes the payload, validated by its annotation, and optionally a Context.
    `timeout` is seconds for one attempt; `retry` is {"max": n, "interval": seconds or a list},
    or {"max": n, "backoff": {"initial": seconds}} (see Backoff).
    An `isolated` handler runs in its own process, forked for each attempt.

    Raises HandlerError if the name is taken or a default is invalid.
    """

    if not isinstance(name, str) or not name or not name.isprintable():
        raise HandlerError('a handler needs a name, written as @handler("NAME"), without control characters')
    if not isinstance(queue, str | None) or not isinstance(isolated, bool):
        raise HandlerError(f"{name}: queue must be the name of a queue, and isolated True or False")

    def register(function: F) -> F:
        if name in _handlers:
            raise HandlerError(f"{name}: there are two handlers of this name")
        try:
            payload, takes_context = _signature(function)
            _handlers[name] = Handler(
                name=name,
                function=function,
                payload=TypeAdapter(payload),
                takes_context=takes_context,
                queue=queue,
                timeout=TypeAdapter(Duration).validate_python(timeout),
                retry=RetryPolicy.model_validate(retry).over(DEFAULT_RETRY),
                isolated=isolated,
            )
        except ValidationError as error:
            option = "retry" if error.title == RetryPolicy.__name__ else "timeout"
            first = error.errors(include_url=False, include_input=False)[0]
            raise HandlerError(f"{name}: {'.'.join(map(str, (option, *first['loc'])))}: {first['msg']}") from error
        except Exception as error:  # pydantic, or an annotation's own code, may raise anything
            raise HandlerError(f"{name}: {describe_exception(error)}") from error
        return function

    return register


def _signature(function: Callable[..., Any]) -> tuple[Any, bool]:
    """Return the payload's annotation, dict[str, Any] if it has none, and True if the function takes a context."""
    if inspect.iscoroutinefunction(function):
        raise TypeError("an async function can't be a handler; wrap it with asyncio.run")
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) not in (1, 2):
        raise TypeError("a handler takes the payload and, if it wants it, the context")
    hints = typing.get_type_hints(function, include_extras=True)
    return hints.get(parameters[0], dict[str, Any]), len(parameters) == 2


def every() -> Collection[Handler]:
    """Return all handlers, including those of the service's own jobs."""
    return _handlers.values()


def find(name: str) -> Handler | None:
    """Return the handler of this job type, or None."""
    return _handlers.get(name)


def types() -> frozenset[str]:
    """Return all job types that this process can run, including DELIVERY."""
    return frozenset(_handlers)


def names() -> list[str]:
    """Return the job types that a client can post, sorted."""
    return sorted(set(_handlers) - {DELIVERY})
