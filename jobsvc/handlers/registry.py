"""Which handlers there are: `@handler` adds one."""

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
from jobsvc.handlers.context import Context
from jobsvc.handlers.retry_policy import DEFAULT_RETRY, DEFAULT_TIMEOUT, Duration, RetryPolicy
from jobsvc.printable import describe_exception
from jobsvc.processes.forks import Boundary

DELIVERY = "WEBHOOK"
"""The type of the jobs that deliver webhooks, which the service makes itself."""

_boundary = Boundary()


@dataclass(frozen=True)
class Handler:
    """A registered handler and its defaults. `queue` is None where it named none."""

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
    def retry_intervals(self) -> list[float]:
        """One interval, in seconds, for each retry of a job that says nothing about them."""
        return self.retry.intervals()

    def payload_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the payload; any object, where its annotation can't be told in one."""
        try:
            return self.payload.json_schema()
        except PydanticInvalidForJsonSchema:
            return {"type": "object"}

    def parse(self, payload: dict[str, Any]) -> Any:
        """The payload as the handler's annotation has it. Raises pydantic's ValidationError."""
        # By way of JSON, so that strict means JSON's types: a date may come as text, a number not.
        return self.payload.validate_json(to_json(payload), strict=True)

    def __call__(self, payload: dict[str, Any], context: Context) -> Any:
        """Run the handler; what it returns and raises passes through."""
        with _boundary:
            arguments = (self.parse(payload), context) if self.takes_context else (self.parse(payload),)
            return self.function(*arguments)


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

    The function takes the payload, whose annotation is its schema, and a Context if it wants one.
    `timeout` is seconds for one attempt; `retry` is {"max": n, "interval": seconds or a list}.
    An `isolated` one runs in a process of its own, forked for each attempt.

    Raises HandlerError when the name is taken or a default makes no sense.
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
        except Exception as error:  # an annotation may be anything, and pydantic, or its own code, raise anything
            raise HandlerError(f"{name}: {describe_exception(error)}") from error
        return function

    return register


def _signature(function: Callable[..., Any]) -> tuple[Any, bool]:
    """The annotation of the payload, any object if there is none, and whether the function takes a context."""
    if inspect.iscoroutinefunction(function):
        raise TypeError("an async function can't be a handler; wrap it with asyncio.run")
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) not in (1, 2):
        raise TypeError("a handler takes the payload and, if it wants it, the context")
    hints = typing.get_type_hints(function, include_extras=True)
    return hints.get(parameters[0], dict[str, Any]), len(parameters) == 2


def every() -> Collection[Handler]:
    """Return all handlers, those of the service's own jobs included."""
    return _handlers.values()


def find(name: str) -> Handler | None:
    """The handler of this job type, or None."""
    return _handlers.get(name)


def types() -> frozenset[str]:
    """Every job type that this process can run, that of the service's own deliveries included."""
    return frozenset(_handlers)


def names() -> list[str]:
    """The job types that a client can post, in order."""
    return sorted(set(_handlers) - {DELIVERY})
